#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton {

// A log that programs read: whole lines, appended to a file by a thread of its own, so that whoever
// adds one never waits for the disk or for a reader. What finds no room is dropped and counted, and
// so is what the disk does not take.
class LineLog {
 public:
  static constexpr size_t kMaxWaitingBytes = size_t{4} << 20;
  // How long its end may take.
  static constexpr Duration kLastWords = seconds(1);

  // Appends to what is there; "-" is standard output. kIo.
  static result<std::unique_ptr<LineLog>> open(const std::string& path,
                                               size_t max_waiting_bytes = kMaxWaitingBytes);
  // Writes what waits, as far as that goes within kLastWords.
  ~LineLog();
  LineLog(const LineLog&) = delete;
  LineLog& operator=(const LineLog&) = delete;

  // `line`: without its end. Never blocks. Any thread.
  void add(std::string_view line);
  // From the next line on writes to the file that has the path's name now: whoever rotates logs has
  // renamed the old one. If that cannot be opened, it goes on where it was. Does not block. Any
  // thread.
  void reopen();
  uint64_t dropped() const { return dropped_; }  // lines, any thread

 private:
  LineLog(std::string path, int fd, size_t max_waiting_bytes);

  void run();
  void open_anew();
  void write_out(std::string_view lines);
  size_t put(std::string_view text);
  bool may_write();
  void fail(std::string_view unwritten);

  const std::string path_;
  const size_t max_waiting_bytes_;
  std::atomic<uint64_t> dropped_{0};

  std::mutex mutex_;
  std::condition_variable wake_;
  std::string waiting_;  // by mutex_, as are the next two
  bool reopen_ = false;
  bool stopping_ = false;

  // The thread's own.
  int fd_;
  bool regular_ = true;    // a file, which takes any length at once
  bool mid_line_ = false;  // the last write ended in a line's middle
  bool failing_ = false;   // and it was said
  std::atomic<TimePoint::rep> give_up_{TimePoint::max().time_since_epoch().count()};
  std::thread thread_;
};

}  // namespace baton
