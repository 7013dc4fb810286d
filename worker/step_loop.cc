#include "worker/step_loop.h"

#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstring>

#include "common/base/log.h"

namespace baton::worker {

using boost::system::error_code;

StepLoop::StepLoop(boost::asio::io_context& io, engine::StepEngine& engine,
                   const engine::StepLimits& limits, uint32_t depth,
                   std::vector<serving::StepClient*> clients, Metrics& metrics,
                   std::function<void(const Error&)> failed)
    : io_(io),
      engine_(engine),
      limits_(limits),
      clients_(std::move(clients)),
      failed_(std::move(failed)),
      event_(io),
      steps_(metrics.counter("baton_steps_total", "Engine steps.")),
      rows_(metrics.counter("baton_step_rows_total", "Tokens computed in engine steps.")) {
  for (uint32_t i = 0; i < depth; ++i) {
    batches_.push_back(std::make_unique<engine::StepBatch>());
    free_.push_back(batches_.back().get());
  }
}

StepLoop::~StepLoop() = default;

status StepLoop::start() {
  const int fd = dup(engine_.event_fd());  // Asio closes what it is given
  if (fd < 0) return error(Errc::kIo, std::string("dup of event fd: ") + std::strerror(errno));
  error_code ec;
  event_.assign(fd, ec);
  if (ec) {
    close(fd);
    return error(Errc::kIo, "cannot watch the engine's descriptor: " + ec.message());
  }
  watch();
  return {};
}

void StepLoop::watch() {
  event_.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                    [this, alive = std::weak_ptr<void>(alive_)](error_code ec) {
                      if (ec || alive.expired()) return;  // being destroyed
                      run();
                      watch();
                    });
}

void StepLoop::kick() {
  if (posted_) return;
  posted_ = true;
  boost::asio::post(io_, [this, alive = std::weak_ptr<void>(alive_)] {
    if (alive.expired()) return;
    posted_ = false;
    run();
  });
}

void StepLoop::run() {
  take_events();
  plan();
}

void StepLoop::take_events() {
  engine::EngineEvent event;
  while (engine_.poll(event)) {
    const TimePoint now = Clock::now();
    if (event.kind == engine::EngineEvent::Kind::kFailed) {
      failed_(engine_.failure().error());
      continue;
    }
    if (event.kind == engine::EngineEvent::Kind::kLayerDone) {
      for (auto* client : clients_) client->on_layer(*event.batch, event.layer, now);
      continue;
    }
    --in_flight_;
    for (auto* client : clients_) client->on_done(*event.batch, now);
    event.batch->clear();
    free_.push_back(event.batch);
  }
}

void StepLoop::plan() {
  while (!free_.empty()) {
    engine::StepBatch& batch = *free_.back();
    engine::StepBudget budget;
    budget.rows = limits_.max_rows;
    budget.sequences = limits_.max_sequences;
    const TimePoint now = Clock::now();
    for (auto* client : clients_) client->plan(budget, batch, now);
    if (batch.empty()) return;
    batch.step = next_step_++;
    steps_.Increment();
    rows_.Increment(batch.num_rows());
    if (!engine_.submit(&batch)) return failed_(error(Errc::kInternal, "the engine has stopped"));
    free_.pop_back();
    ++in_flight_;
  }
}

}  // namespace baton::worker
