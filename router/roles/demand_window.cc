#include "router/roles/demand_window.h"

#include <algorithm>

namespace baton::router {
namespace {

constexpr int64_t kTokenSeconds = 5;

int64_t second_of(TimePoint t) {
  return std::chrono::duration_cast<seconds>(t.time_since_epoch()).count();
}

}  // namespace

DemandWindow::DemandWindow(Duration window)
    : length_(std::clamp<int64_t>(std::chrono::duration_cast<seconds>(window).count(), 1,
                                  kMostSeconds)) {}

DemandWindow::Second& DemandWindow::at(TimePoint now) {
  const int64_t second = std::max(second_of(now), newest_);
  if (begun_ < 0) begun_ = newest_ = second;
  const int64_t clear_from = std::max(newest_ + 1, second - static_cast<int64_t>(ring_.size()) + 1);
  for (int64_t s = clear_from; s <= second; ++s) ring_[s % ring_.size()] = {};
  newest_ = second;
  return ring_[second % ring_.size()];
}

void DemandWindow::arrived(double prompt_seconds, double prompt_tokens, const SloTarget& target,
                           TimePoint now) {
  Second& s = at(now);
  ++s.arrived;
  s.prompt_seconds += prompt_seconds;
  // One that takes longer than its target is late or refused, however much room there is.
  const double hopeful =
      target.ttft ? std::min(prompt_seconds, to_seconds(*target.ttft)) : prompt_seconds;
  s.squares += prompt_seconds * hopeful;
  s.prompt_tokens += prompt_tokens;
  s.ttft += to_seconds(target.ttft.value_or(Duration{}));
  s.with_ttft += target.ttft.has_value();
  s.tpot += to_seconds(target.tpot.value_or(Duration{}));
  s.with_tpot += target.tpot.has_value();
}

void DemandWindow::refused(TimePoint now) { ++at(now).refused; }

void DemandWindow::delivered(uint32_t tokens, TimePoint now) { at(now).tokens += tokens; }

DemandWindow::Rates DemandWindow::rates(TimePoint now) {
  (void)at(now);
  Second sum;
  const int64_t first = std::max(newest_ - length_, begun_);
  for (int64_t s = first; s < newest_; ++s) {
    const Second& one = ring_[s % ring_.size()];
    sum.prompt_seconds += one.prompt_seconds;
    sum.squares += one.squares;
    sum.prompt_tokens += one.prompt_tokens;
    sum.ttft += one.ttft;
    sum.tpot += one.tpot;
    sum.arrived += one.arrived;
    sum.with_ttft += one.with_ttft;
    sum.with_tpot += one.with_tpot;
    sum.refused += one.refused;
    if (s >= newest_ - kTokenSeconds) sum.tokens += one.tokens;
  }
  const auto span = static_cast<double>(std::max<int64_t>(newest_ - first, 1));
  Rates out{.requests = sum.arrived / span,
            .prompt_seconds = sum.prompt_seconds / span,
            .tokens = static_cast<double>(sum.tokens) / std::min<double>(span, kTokenSeconds)};
  if (sum.arrived > 0) {
    out.admitted = 1.0 - static_cast<double>(std::min(sum.refused, sum.arrived)) / sum.arrived;
    out.prompt_tokens = sum.prompt_tokens / sum.arrived;
  }
  if (sum.prompt_seconds > 0) out.prompt_spread = sum.squares / sum.prompt_seconds;
  if (sum.with_ttft > 0) out.ttft = sum.ttft / sum.with_ttft;
  if (sum.with_tpot > 0) out.tpot = sum.tpot / sum.with_tpot;
  return out;
}

}  // namespace baton::router
