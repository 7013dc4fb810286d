#include "common/engine/rank_loop.h"

namespace baton::engine {
namespace {

class Nobody final : public StepObserver {
 public:
  void on_layer(StepBatch&, uint32_t) override {}
};

}  // namespace

status follow_steps(StepRunner& runner, const collective::Collective& ranks,
                    const std::function<result<bool>(StepBatch&)>& next) {
  StepBatch batch;
  Nobody nobody;
  for (;;) {
    BATON_TRY(const bool more, next(batch));
    if (!more) return {};
    runner.run(batch, nobody);
    BATON_CHECK_OK(ranks.health());
  }
}

}  // namespace baton::engine
