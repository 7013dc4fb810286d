#include "common/base/line_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include "common/base/log.h"

namespace baton {
namespace {

constexpr int kPollMs = 100;
// Beyond kLastWords: for a thread that is between two polls, or gets no core at once.
constexpr Duration kLetGo = milliseconds(500);

int open_for_append(const std::string& path) {
  if (path == "-") return ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640);
}

bool is_regular(int fd) {
  struct stat found {};
  return ::fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

}  // namespace

// All that the thread uses: it may be left behind with it.
class LineLog::Writer {
 public:
  Writer(std::string path, int fd, size_t max_waiting_bytes, Write write)
      : path_(std::move(path)),
        max_waiting_bytes_(max_waiting_bytes),
        write_(write ? std::move(write) : Write(::write)),
        fd_(fd),
        regular_(is_regular(fd)) {}

  void add(std::string_view line);
  void reopen();
  const std::string& path() const { return path_; }
  uint64_t dropped() const { return dropped_; }
  // False: it has not ended within the time, and says nothing any more.
  bool stop();

  void run();  // its thread

 private:
  void write_lines();
  void open_anew();
  void write_out(std::string_view lines);
  size_t put(std::string_view text);
  bool may_write();
  void fail(std::string_view unwritten);

  const std::string path_;
  const size_t max_waiting_bytes_;
  const Write write_;
  std::atomic<uint64_t> dropped_{0};
  std::atomic<bool> abandoned_{false};
  std::atomic<TimePoint::rep> give_up_{TimePoint::max().time_since_epoch().count()};

  std::mutex mutex_;
  std::condition_variable wake_, ended_;
  std::string waiting_;  // by mutex_, as are the next three
  bool reopen_ = false;
  bool stopping_ = false;
  bool over_ = false;

  // The thread's own.
  int fd_;
  bool regular_;           // a file, which takes any length at once
  bool mid_line_ = false;  // the last write ended in a line's middle
  bool failing_ = false;   // and it was said
};

result<std::unique_ptr<LineLog>> LineLog::open(const std::string& path, size_t max_waiting_bytes,
                                               Write write) {
  const int fd = open_for_append(path);
  if (fd < 0) return error(Errc::kIo, "cannot write " + path + ": " + std::strerror(errno));
  auto writer = std::make_shared<Writer>(path, fd, max_waiting_bytes, std::move(write));
  std::thread([writer] { writer->run(); }).detach();
  return std::unique_ptr<LineLog>(new LineLog(std::move(writer)));
}

LineLog::LineLog(std::shared_ptr<Writer> writer) : writer_(std::move(writer)) {}

LineLog::~LineLog() {
  if (writer_->stop()) return;
  LOG_WARN("the end of the log {} is not written: its file system hangs", writer_->path());
}

void LineLog::add(std::string_view line) { writer_->add(line); }
void LineLog::reopen() { writer_->reopen(); }
uint64_t LineLog::dropped() const { return writer_->dropped(); }

void LineLog::Writer::add(std::string_view line) {
  {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() + line.size() + 1 > max_waiting_bytes_) {
      ++dropped_;
      return;
    }
    waiting_ += line;
    waiting_ += '\n';
  }
  wake_.notify_one();
}

void LineLog::Writer::reopen() {
  {
    const std::lock_guard lock(mutex_);
    reopen_ = true;
  }
  wake_.notify_one();
}

bool LineLog::Writer::stop() {
  const TimePoint give_up = Clock::now() + kLastWords;
  give_up_ = give_up.time_since_epoch().count();
  std::unique_lock lock(mutex_);
  stopping_ = true;
  wake_.notify_one();
  const bool over = ended_.wait_until(lock, give_up + kLetGo, [&] { return over_; });
  abandoned_ = !over;
  return over;
}

// --- its thread ----------------------------------------------------------------------------------

void LineLog::Writer::run() {
  write_lines();
  ::close(fd_);
  const std::lock_guard lock(mutex_);
  over_ = true;
  ended_.notify_one();
}

void LineLog::Writer::write_lines() {
  std::string lines;
  for (bool stop = false; !stop;) {
    bool reopen = false;
    lines.clear();
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return stopping_ || reopen_ || !waiting_.empty(); });
      std::swap(lines, waiting_);
      reopen = std::exchange(reopen_, false);
      stop = stopping_;
    }
    if (reopen) open_anew();
    if (!lines.empty()) write_out(lines);
  }
}

void LineLog::Writer::open_anew() {
  const int fd = open_for_append(path_);
  if (fd < 0) {
    if (abandoned_) return;
    LOG_WARN("{} cannot be opened anew: {}; the log goes on where it was", path_,
             std::strerror(errno));
    return;
  }
  ::close(std::exchange(fd_, fd));
  regular_ = is_regular(fd_);
  mid_line_ = false;
}

// A pipe whose reader stands still must not hold up the end of the process.
bool LineLog::Writer::may_write() {
  if (regular_) return true;
  for (;;) {
    pollfd ready{fd_, POLLOUT, 0};
    if (::poll(&ready, 1, kPollMs) > 0) return true;
    if (Clock::now().time_since_epoch().count() >= give_up_) {
      errno = ETIMEDOUT;
      return false;
    }
  }
}

void LineLog::Writer::write_out(std::string_view lines) {
  if (mid_line_ && put("\n") == 0) return fail(lines);
  const size_t written = put(lines);
  if (written < lines.size()) return fail(lines.substr(written));
  failing_ = false;
}

// How much of it was written; where that is not all, errno says why.
size_t LineLog::Writer::put(std::string_view text) {
  size_t done = 0;
  while (done < text.size() && may_write()) {
    // Of a pipe that is ready, as much as it is sure to take at once.
    const size_t most =
        regular_ ? text.size() - done : std::min<size_t>(text.size() - done, PIPE_BUF);
    const ssize_t written = write_(fd_, text.data() + done, most);
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written <= 0) break;
    done += static_cast<size_t>(written);
    mid_line_ = text[done - 1] != '\n';
  }
  return done;
}

void LineLog::Writer::fail(std::string_view unwritten) {
  dropped_ += static_cast<uint64_t>(std::ranges::count(unwritten, '\n'));
  if (std::exchange(failing_, true) || abandoned_) return;
  LOG_WARN("the log {} takes no more: {}; lines are dropped until it does", path_,
           std::strerror(errno));
}

}  // namespace baton
