#include "worker/rank_channel.h"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace baton::worker {
namespace {

constexpr uint32_t kMaxBytes = 256u << 20;  // of one message

struct Header {
  uint32_t bytes = 0;
  RankFrame frame = RankFrame::kFailed;
};

// Whether the socket is ready by then.
result<bool> wait_for(int fd, short events, std::optional<TimePoint> end) {
  for (;;) {
    int ms = -1;
    if (end) {
      const auto left = std::chrono::ceil<milliseconds>(*end - Clock::now()).count();
      ms = static_cast<int>(std::clamp<int64_t>(left, 0, 1 << 30));
    }
    pollfd waited = {.fd = fd, .events = events, .revents = 0};
    const int n = ::poll(&waited, 1, ms);
    if (n > 0) return true;
    if (n == 0) return false;
    if (errno != EINTR) return error(Errc::kIo, std::string("poll: ") + std::strerror(errno));
  }
}

}  // namespace

std::string_view name(RankFrame frame) {
  switch (frame) {
    case RankFrame::kSetup:
      return "setup";
    case RankFrame::kAddresses:
      return "addresses";
    case RankFrame::kCache:
      return "cache";
    case RankFrame::kStep:
      return "step";
    case RankFrame::kReady:
      return "ready";
    case RankFrame::kFailed:
      return "failed";
  }
  return "?";
}

result<std::pair<RankChannel, RankChannel>> RankChannel::make() {
  int fds[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) {
    return error(Errc::kIo, std::string("socketpair: ") + std::strerror(errno));
  }
  return std::pair(RankChannel(fds[0]), RankChannel(fds[1]));
}

RankChannel::~RankChannel() {
  if (fd_ >= 0) ::close(fd_);
}

RankChannel& RankChannel::operator=(RankChannel&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(received_, other.received_);
  return *this;
}

status RankChannel::send(RankFrame frame, std::span<const std::byte> bytes, milliseconds patience) {
  if (bytes.size() > kMaxBytes) {
    return error(Errc::kInvalidArgument,
                 fmt::format("{} of {} bytes is too long", name(frame), bytes.size()));
  }
  const TimePoint end = Clock::now() + patience;
  const Header header{static_cast<uint32_t>(bytes.size()), frame};
  std::span<const std::byte> left = std::as_bytes(std::span(&header, 1));
  for (const auto rest : {bytes, std::span<const std::byte>()}) {
    while (!left.empty()) {
      const ssize_t n = ::send(fd_, left.data(), left.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n >= 0) {
        left = left.subspan(static_cast<size_t>(n));
        continue;
      }
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        return error(Errc::kUnavailable, std::string("it is gone: ") + std::strerror(errno));
      }
      BATON_TRY(const bool room, wait_for(fd_, POLLOUT, end));
      if (!room) return error(Errc::kDeadlineExceeded, "it takes nothing any more");
    }
    left = rest;
  }
  return {};
}

result<bool> RankChannel::read(std::span<std::byte> into, std::optional<TimePoint> end,
                               bool may_end) {
  const size_t wanted = into.size();
  while (!into.empty()) {
    BATON_TRY(const bool there, wait_for(fd_, POLLIN, end));
    if (!there) return error(Errc::kDeadlineExceeded, "it does not answer");
    const ssize_t n = ::recv(fd_, into.data(), into.size(), MSG_DONTWAIT);
    if (n > 0) {
      into = into.subspan(static_cast<size_t>(n));
    } else if (n == 0) {
      if (may_end && into.size() == wanted) return false;
      return error(Errc::kUnavailable, "it ended in the middle of a message");
    } else if (errno != EINTR && errno != EAGAIN) {
      return error(Errc::kUnavailable, std::string("it is gone: ") + std::strerror(errno));
    }
  }
  return true;
}

result<std::optional<RankChannel::Message>> RankChannel::receive(
    std::optional<milliseconds> patience) {
  const auto end = patience ? std::optional(Clock::now() + *patience) : std::nullopt;
  Header header;
  BATON_TRY(const bool more,
            read(std::as_writable_bytes(std::span(&header, 1)), end, /*may_end=*/true));
  if (!more) return std::optional<Message>();
  if (header.bytes > kMaxBytes) return error(Errc::kDataCorrupt, "a message of impossible length");
  received_.resize(header.bytes);
  BATON_TRY(const bool whole, read(received_, end, /*may_end=*/false));
  (void)whole;  // an end is an error there
  return std::optional(Message{header.frame, received_});
}

result<bool> RankChannel::has_message(std::chrono::nanoseconds patience) const {
  pollfd waited = {.fd = fd_, .events = POLLIN, .revents = 0};
  const timespec most = {.tv_sec = patience.count() / 1'000'000'000,
                         .tv_nsec = patience.count() % 1'000'000'000};
  const int n = ::ppoll(&waited, 1, &most, nullptr);
  if (n >= 0) return n > 0;
  if (errno == EINTR) return false;
  return error(Errc::kIo, std::string("ppoll: ") + std::strerror(errno));
}

result<RankChannel::Message> RankChannel::expect(RankFrame frame, milliseconds patience) {
  BATON_TRY(const std::optional<Message> message, receive(patience));
  if (!message) return error(Errc::kUnavailable, "it has ended");
  if (message->frame == RankFrame::kFailed) {
    return error(Errc::kUnavailable, std::string(message->text()));
  }
  if (message->frame != frame) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{} where {} was due", name(message->frame), name(frame)));
  }
  return *message;
}

}  // namespace baton::worker
