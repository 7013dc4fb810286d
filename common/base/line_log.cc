#include "common/base/line_log.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "common/base/log.h"

namespace baton {
namespace {

constexpr int kPollMs = 100;

int open_for_append(const std::string& path) {
  if (path == "-") return ::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
  return ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_NONBLOCK | O_CLOEXEC, 0640);
}

bool is_regular(int fd) {
  struct stat found {};
  return ::fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

}  // namespace

result<std::unique_ptr<LineLog>> LineLog::open(const std::string& path, size_t max_waiting_bytes) {
  const int fd = open_for_append(path);
  if (fd < 0) return error(Errc::kIo, "cannot write " + path + ": " + std::strerror(errno));
  return std::unique_ptr<LineLog>(new LineLog(path, fd, max_waiting_bytes));
}

LineLog::LineLog(std::string path, int fd, size_t max_waiting_bytes)
    : path_(std::move(path)), max_waiting_bytes_(max_waiting_bytes), fd_(fd) {
  regular_ = is_regular(fd_);
  thread_ = std::thread([this] { run(); });
}

LineLog::~LineLog() {
  give_up_ = (Clock::now() + kLastWords).time_since_epoch().count();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_one();
  thread_.join();
  ::close(fd_);
}

void LineLog::add(std::string_view line) {
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

void LineLog::reopen() {
  {
    const std::lock_guard lock(mutex_);
    reopen_ = true;
  }
  wake_.notify_one();
}

// --- its thread ----------------------------------------------------------------------------------

void LineLog::run() {
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

void LineLog::open_anew() {
  const int fd = open_for_append(path_);
  if (fd < 0) {
    LOG_WARN("{} cannot be opened anew: {}; the log goes on where it was", path_,
             std::strerror(errno));
    return;
  }
  ::close(std::exchange(fd_, fd));
  regular_ = is_regular(fd_);
  mid_line_ = false;
}

// A pipe whose reader stands still must not hold up the end of the process.
bool LineLog::may_write() {
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

void LineLog::write_out(std::string_view lines) {
  if (mid_line_ && put("\n") == 0) return fail(lines);
  const size_t written = put(lines);
  if (written < lines.size()) return fail(lines.substr(written));
  failing_ = false;
}

// How much of it was written; where that is not all, errno says why.
size_t LineLog::put(std::string_view text) {
  size_t done = 0;
  while (done < text.size() && may_write()) {
    // Of a pipe that is ready, as much as it is sure to take at once.
    const size_t most =
        regular_ ? text.size() - done : std::min<size_t>(text.size() - done, PIPE_BUF);
    const ssize_t written = ::write(fd_, text.data() + done, most);
    if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (written <= 0) break;
    done += static_cast<size_t>(written);
    mid_line_ = text[done - 1] != '\n';
  }
  return done;
}

void LineLog::fail(std::string_view unwritten) {
  dropped_ += static_cast<uint64_t>(std::ranges::count(unwritten, '\n'));
  if (std::exchange(failing_, true)) return;
  LOG_WARN("the log {} takes no more: {}; lines are dropped until it does", path_,
           std::strerror(errno));
}

}  // namespace baton
