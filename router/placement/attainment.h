#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "common/base/clock.h"
#include "router/placement/slo.h"

// Whether a request got what it was promised.
namespace baton::router {

// When the tokens of one choice were delivered, those without text, too.
class TokenTimes {
 public:
  void add(TimePoint now);

  uint32_t tokens() const { return tokens_; }
  std::optional<TimePoint> first() const;
  std::optional<TimePoint> last() const;
  // Mean time of a token after the first: (last - first) / (tokens - 1). Nothing: no second one.
  std::optional<Duration> tpot() const;
  // The longest time between two; zero without a second one.
  Duration worst_gap() const { return worst_gap_; }

 private:
  TimePoint first_, last_;
  Duration worst_gap_{};
  uint32_t tokens_ = 0;
};

struct Measured {
  std::optional<Duration> ttft, tpot;
  Duration worst_gap{};
};

// Of a request with several choices or prompts, each figure is that of the choice that fared worst
// in it; one without tokens has none.
Measured worst_of(std::span<const TokenTimes> choices, TimePoint received);

enum class SloResult : uint8_t {
  kMet,
  kMissedTtft,
  kMissedTpot,
  kMissedBoth,
  kRefused,    // before its first token, for its targets or for want of room
  kFailed,     // any other error
  kCancelled,  // the client went away, or did not read
};
inline constexpr size_t kNumSloResults = 7;
std::string_view name(SloResult result);

// Of a request that was answered to its end. Without a target, or a second token to have a TPOT
// with, nothing is missed; a TTFT that was promised and has no token is.
SloResult attained(const SloTarget& target, const Measured& measured);

}  // namespace baton::router
