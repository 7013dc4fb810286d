#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <vector>

#include "common/base/metrics.h"
#include "common/engine/step_engine.h"
#include "common/serving/step_client.h"

namespace baton::worker {

// Keeps the engine busy: asks its clients in turn (decode first, then prefill, so that a mixed step
// is decode rows and then a chunk) for the next step while the last one runs. Control thread.
class StepLoop {
 public:
  // `failed` is called when the engine computes no more. `depth`: steps given to the engine at
  // once; with 2 the next one is planned before the tokens of the one before are read. All outlive
  // the loop.
  StepLoop(boost::asio::io_context& io, engine::StepEngine& engine,
           const engine::StepLimits& limits, uint32_t depth,
           std::vector<serving::StepClient*> clients, Metrics& metrics,
           std::function<void(const Error&)> failed);
  ~StepLoop();

  status start();
  // There may be something to plan. Cheap; coalesced.
  void kick();
  bool idle() const { return in_flight_ == 0; }

 private:
  void run();
  void take_events();
  void plan();
  void watch();

  boost::asio::io_context& io_;
  engine::StepEngine& engine_;
  const engine::StepLimits limits_;
  const std::vector<serving::StepClient*> clients_;
  const std::function<void(const Error&)> failed_;
  boost::asio::posix::stream_descriptor event_;
  std::vector<std::unique_ptr<engine::StepBatch>> batches_;  // all
  std::vector<engine::StepBatch*> free_;
  uint32_t in_flight_ = 0;
  uint64_t next_step_ = 1;
  const std::shared_ptr<void> alive_ = std::make_shared<char>();  // handlers may outlive this
  bool posted_ = false;
  prometheus::Counter& steps_;
  prometheus::Counter& rows_;
};

}  // namespace baton::worker
