#include "common/engine/rank_loop.h"

#include <array>

namespace baton::engine {
namespace {

class Nobody final : public StepObserver {
 public:
  void on_layer(StepBatch&, uint32_t) override {}
};

}  // namespace

status follow_steps(StepRunner& runner, const collective::Collective& ranks, const TakeStep& take) {
  Nobody nobody;
  std::array<StepBatch, StepRunner::kMaxSteps> batches;
  uint32_t at = 0;
  bool taken = false;  // batches[at], and not begun
  for (;;) {
    if (!taken && runner.has_room()) {
      BATON_TRY(const NextStep next, take(batches[at], /*wait=*/runner.in_flight() == 0));
      if (next == NextStep::kEnd) return {};
      taken = next == NextStep::kStep;
    }
    if (taken && runner.can_begin(batches[at])) {
      runner.begin(batches[at], nobody);
      at = (at + 1) % batches.size();
      taken = false;
      if (runner.has_room()) continue;
    }
    if (runner.in_flight() > 0 && (taken || !runner.has_room() || runner.look())) {
      runner.finish();
      BATON_CHECK_OK(ranks.health());
    }
  }
}

}  // namespace baton::engine
