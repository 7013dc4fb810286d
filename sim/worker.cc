#include "sim/worker.h"

#include <cstdlib>
#include <utility>

#include "common/engine/batch_work.h"

namespace baton::sim {

Worker::Worker(const WorkerSetup& setup, std::unique_ptr<kvtransfer::Transport> transport,
               Outside& outside, Timeline& timeline, ProcessClock clock)
    : Process(setup.name.empty() ? "worker-" + std::to_string(setup.id().value) : setup.name,
              timeline, clock),
      setup_(setup),
      outside_(outside) {
  auto core = worker::WorkerCore::create(setup_.core, std::move(transport), *this, metrics_);
  if (!core) std::abort();
  core_ = std::move(*core);
  cache_ = *kvcache::KvCache::create(core_->driver().cache(), setup_.core.handoff.layout,
                                     setup_.core.num_blocks);
  clients_ = core_->step_clients();
  if (setup_.learns && setup_.profile) learnt_.emplace(setup_.profile->step);
  for (uint32_t i = 0; i < setup_.step_depth; ++i) {
    free_.push_back(batches_.emplace_back(std::make_unique<engine::StepBatch>()).get());
  }
  engine_ =
      setup_.make_engine(cache_, {.on_layer = [this](const engine::StepBatch& batch,
                                                     uint32_t layer) { on_layer(batch, layer); },
                                  .on_done = [this](engine::StepBatch& batch) { on_done(batch); },
                                  .process = *this});
}

void Worker::start(Duration phase) {
  if (phase == Duration::zero()) return tick();
  later(phase, [this] { tick(); });
}

const kvtransfer::Endpoint& Worker::endpoint() const {
  return core_->driver().hello().ranks[0].endpoint;
}

proto::WorkerHello Worker::hello(const std::string& address) const {
  const worker::CoreConfig& core = setup_.core;
  proto::WorkerHello h;
  h.set_protocol_min(1);
  h.set_protocol_max(setup_.protocol);
  h.set_worker(id().value);
  h.set_name(name());
  h.set_role(core_->role());
  h.set_auto_role(core.auto_role);
  h.set_model(setup_.model);
  h.set_model_key(core.handoff.model_key);
  h.set_numerics(core.handoff.numerics);
  h.set_block_tokens(core.handoff.layout.block_tokens);
  h.set_total_blocks(core.num_blocks);
  h.set_max_context(core.limits.max_context);
  h.set_max_sequences(setup_.max_sequences);
  h.set_vocab_size(core.requests.vocab_size);
  h.set_pair_address(address);
  h.set_step_tokens(core.limits.max_rows);
  h.set_chunk_tokens(core.chunk_tokens == 0 ? core.limits.max_context : core.chunk_tokens);
  return h;
}

bool Worker::progress() {
  if (paused()) return false;
  const bool polled = poll_handoff();
  return plan() || polled;
}

bool Worker::poll_handoff() {
  kvtransfer::HandoffDriver& driver = core_->driver();
  const auto idle = driver.arm();
  if (!touched_ && idle && *idle && driver.next_deadline() > local_now()) return false;
  touched_ = false;
  if (driver.poll(local_now())) touched_ = true;
  return true;
}

bool Worker::plan() {
  if (!std::exchange(work_added_, false)) return false;
  const engine::StepLimits& limits = setup_.core.limits;
  bool any = false;
  while (!free_.empty()) {
    engine::StepBatch& batch = *free_.back();
    engine::StepBudget budget{.rows = limits.max_rows, .sequences = limits.max_sequences};
    for (auto* client : clients_) client->plan(budget, batch, local_now());
    if (batch.empty()) break;
    batch.step = next_step_++;
    free_.pop_back();
    engine_->submit(&batch);
    any = true;
  }
  return any;
}

void Worker::on_layer(const engine::StepBatch& batch, uint32_t layer) {
  for (auto* client : clients_) client->on_layer(batch, layer, local_now());
}

void Worker::on_done(engine::StepBatch& batch) {
  if (learnt_) learnt_->observe(engine::work_of(batch), batch.duration);
  for (auto* client : clients_) client->on_done(batch, local_now());
  batch.clear();
  free_.push_back(&batch);
  work_added();
}

TimePoint Worker::next_time() const {
  return std::max(clock().true_time(core_->driver().next_deadline()), paused_until());
}

void Worker::tick() {
  core_->expire(local_now());
  send_load();
  later(setup_.tick, [this] { tick(); });
}

proto::Load Worker::load() {
  const latency::StepCosts* costs = setup_.profile ? &setup_.profile->step : nullptr;
  proto::Load load = core_->load(learnt_ ? &learnt_->costs() : costs);
  load.set_num_routers(setup_.num_routers);
  if (!setup_.core.auto_role) return load;
  for (const RouterId router : outside_.routers_of(*this)) load.add_routers(router.value);
  return load;
}

void Worker::send_load() {
  if (core_ == nullptr) return;
  *load_.mutable_load() = load();
  load_.SerializeToString(&load_text_);
  const TimePoint now = local_now();
  if (load_text_ == last_load_ && now - last_load_at_ < setup_.load_every) return;
  std::swap(last_load_, load_text_);
  last_load_at_ = now;
  if (setup_.num_routers < 2) return outside_.to_all_routers(*this, load_);
  for (const RouterId router : outside_.routers_of(*this)) {
    core_->add_others(router, *load_.mutable_load());
    outside_.to_router(*this, router, load_);
  }
}

void Worker::work_came() {
  if (load_is_due_ || setup_.num_routers < 2) return;
  load_is_due_ = true;
  later(std::max(last_load_at_ + worker::kLoadSoon - local_now(), Duration::zero()), [this] {
    load_is_due_ = false;
    send_load();
  });
}

void Worker::send(RouterId router, const proto::Frame& frame) {
  outside_.to_router(*this, router, frame);
}

void Worker::work_added() {
  work_added_ = true;
  outside_.woken(*this);
}

void Worker::handoff_touched() {
  touched_ = true;
  outside_.woken(*this);
}

void Worker::peer_lost(WorkerId worker) { outside_.gave_up(*this, worker); }

}  // namespace baton::sim
