#include "router/placement/attainment.h"

#include <algorithm>

namespace baton::router {

void TokenTimes::add(TimePoint now) {
  if (tokens_++ == 0) {
    first_ = last_ = now;
    return;
  }
  worst_gap_ = std::max(worst_gap_, now - last_);
  last_ = now;
}

std::optional<TimePoint> TokenTimes::first() const {
  if (tokens_ == 0) return std::nullopt;
  return first_;
}

std::optional<TimePoint> TokenTimes::last() const {
  if (tokens_ == 0) return std::nullopt;
  return last_;
}

std::optional<Duration> TokenTimes::tpot() const {
  if (tokens_ < 2) return std::nullopt;
  return (last_ - first_) / (tokens_ - 1);
}

Measured worst_of(std::span<const TokenTimes> choices, TimePoint received) {
  Measured worst;  // nothing is less than any time
  for (const TokenTimes& choice : choices) {
    if (choice.first())
      worst.ttft = std::max(worst.ttft, std::optional(*choice.first() - received));
    worst.tpot = std::max(worst.tpot, choice.tpot());
    worst.worst_gap = std::max(worst.worst_gap, choice.worst_gap());
  }
  return worst;
}

std::string_view name(SloResult result) {
  switch (result) {
    case SloResult::kMet:
      return "met";
    case SloResult::kMissedTtft:
      return "missed_ttft";
    case SloResult::kMissedTpot:
      return "missed_tpot";
    case SloResult::kMissedBoth:
      return "missed_both";
    case SloResult::kRefused:
      return "refused";
    case SloResult::kFailed:
      return "failed";
    case SloResult::kCancelled:
      return "cancelled";
  }
  return "failed";
}

SloResult attained(const SloTarget& target, const Measured& measured) {
  const bool ttft = target.ttft && (!measured.ttft || *measured.ttft > *target.ttft);
  const bool tpot = target.tpot && measured.tpot && *measured.tpot > *target.tpot;
  if (ttft && tpot) return SloResult::kMissedBoth;
  if (ttft) return SloResult::kMissedTtft;
  return tpot ? SloResult::kMissedTpot : SloResult::kMet;
}

}  // namespace baton::router
