#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton {

// A log that programs read: whole lines, appended to a file by a thread of its own, so that whoever
// adds one never waits for the disk or for a reader. What finds no room is dropped and counted, and
// so is what the disk does not take.
class LineLog {
 public:
  static constexpr size_t kMaxWaitingBytes = size_t{4} << 20;
  // How long its end may take to write what waits.
  static constexpr Duration kLastWords = seconds(1);

  using Write = std::function<ssize_t(int fd, const void* bytes, size_t count)>;  // as write(2)

  // Appends to what is there; "-" is standard output. kIo. May block; nothing after it does.
  static result<std::unique_ptr<LineLog>> open(const std::string& path,
                                               size_t max_waiting_bytes = kMaxWaitingBytes,
                                               Write write = {});
  // Writes what waits, as far as that goes within kLastWords. A file system that hangs cannot be
  // told to let go: its thread is then left behind, with what it uses.
  ~LineLog();
  LineLog(const LineLog&) = delete;
  LineLog& operator=(const LineLog&) = delete;

  // `line`: without its end. Never blocks. Any thread.
  void add(std::string_view line);
  // From the next line on writes to the file that has the path's name now: whoever rotates logs has
  // renamed the old one. If that cannot be opened, it goes on where it was. Does not block. Any
  // thread.
  void reopen();
  uint64_t dropped() const;  // lines, any thread

 private:
  class Writer;
  explicit LineLog(std::shared_ptr<Writer> writer);

  const std::shared_ptr<Writer> writer_;
};

}  // namespace baton
