#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton::worker {

// What goes between the first rank of a worker and another. Each is answered as said; an answer may
// also be kFailed.
enum class RankFrame : uint8_t {
  kSetup = 1,      // to the rank: proto::RankSetup. Then both sides exchange addresses, some times
                   // over, and the rank loads the model: kReady
  kAddresses = 2,  // from the rank: what it has to say; to it: proto::RankAddresses
  kCache = 3,      // to the rank: proto::RankCache. Answered by kReady
  kStep = 4,       // to the rank: engine::encode of a step. Not answered
  kReady = 5,      // from the rank
  kFailed = 6,     // from the rank: a sentence; it ends
};
std::string_view name(RankFrame frame);

// How long either side waits for the other.
inline constexpr milliseconds kRankStart{30'000};    // until a process answers
inline constexpr milliseconds kRankLoad{1'800'000};  // the longest load of a model
inline constexpr milliseconds kRankStep{30'000};     // in a step, before the other counts as dead

// One side of the line between two ranks, which is a pair of sockets that one process has from
// birth: nobody else can reach it. Blocks; one thread sends and one receives.
class RankChannel {
 public:
  struct Message {
    RankFrame frame;
    std::span<const std::byte> bytes;  // until the next receive()
    std::string_view text() const {
      return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
  };

  // Both ends.
  static result<std::pair<RankChannel, RankChannel>> make();
  explicit RankChannel(int fd) : fd_(fd) {}
  ~RankChannel();
  RankChannel(RankChannel&& other) noexcept { *this = std::move(other); }
  RankChannel& operator=(RankChannel&& other) noexcept;

  int fd() const { return fd_; }

  // kDeadlineExceeded: the other side has not taken it for that long. kUnavailable: it is gone.
  status send(RankFrame frame, std::span<const std::byte> bytes, milliseconds patience);
  status send(RankFrame frame, const std::string& text, milliseconds patience) {
    return send(frame, std::as_bytes(std::span(text)), patience);
  }
  // nullopt: the other side has ended. Waits for as long as it takes where `patience` is none.
  result<std::optional<Message>> receive(std::optional<milliseconds> patience);
  // Waits that long at most for there to be something to receive, or an end. kIo.
  result<bool> has_message(std::chrono::nanoseconds patience) const;
  // The next message, which must be this one. kFailed is the error that it tells.
  result<Message> expect(RankFrame frame, milliseconds patience);

 private:
  // False: the other side has ended, at a message's beginning.
  result<bool> read(std::span<std::byte> into, std::optional<TimePoint> end, bool may_end);

  int fd_ = -1;
  std::vector<std::byte> received_;
};

}  // namespace baton::worker
