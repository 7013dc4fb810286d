#include "sim/worker.h"

#include <cstdlib>
#include <utility>

namespace baton::sim {
namespace {

constexpr Duration kTick = milliseconds(20);

kvtransfer::HandoffConfig handoff_config(const WorkerShape& shape) {
  kvtransfer::HandoffConfig c;
  c.worker = shape.id;
  c.model_key = "m";
  c.numerics = "sim";
  c.layout = Worker::layout(shape.block_tokens);
  c.layout.shard_heads = shape.shard_heads;
  c.num_blocks = shape.num_blocks;
  c.max_parked_blocks = shape.num_blocks / 2;
  // The server's timers, five times as fast: more happens in a second.
  c.heartbeat_every = milliseconds(100);
  c.peer_timeout = milliseconds(800);
  c.lease = seconds(1);
  c.renew_every = milliseconds(200);
  c.park_timeout = seconds(6);
  c.early_credit_ttl = seconds(2);
  c.read_bytes = 512;  // several reads even for a short prompt
  c.window_bytes = 4096;
  c.window_reads = 6;
  return c;
}

}  // namespace

kvcache::KvLayout Worker::layout(uint32_t block_tokens) {
  return kvcache::KvLayout::full_kv(kLayers, kKvHeads, 4, DType::kBF16, block_tokens);
}

Worker::Worker(const WorkerShape& shape, std::unique_ptr<kvtransfer::Transport> transport,
               Outside& outside, Timeline& timeline, ProcessClock clock)
    : Process("worker-" + std::to_string(shape.id.value), timeline, clock),
      shape_(shape),
      outside_(outside) {
  worker::CoreConfig config;
  config.role = shape.role;
  config.handoff = handoff_config(shape);
  config.model_key = {"w", "", "t"};
  config.limits = limits();
  config.requests.vocab_size = Engine::kVocabulary;
  config.requests.eos = {Engine::kEos};
  config.requests.max_context = config.limits.max_context;
  config.num_blocks = shape.num_blocks;
  config.chunk_tokens = shape.chunk_tokens;
  config.preempt_every = shape.preempt_every;
  auto core = worker::WorkerCore::create(config, std::move(transport), *this, metrics_);
  if (!core) std::abort();  // a shape that cannot be
  core_ = std::move(*core);
  cache_ =
      *kvcache::KvCache::create(core_->driver().cache(), config.handoff.layout, shape.num_blocks);
  clients_ = core_->step_clients();
  for (uint32_t i = 0; i < shape.step_depth; ++i) {
    free_.push_back(batches_.emplace_back(std::make_unique<engine::StepBatch>()).get());
  }
  engine_.emplace(cache_, config.limits.max_slots, shape.layer_time,
                  Engine::Callbacks{
                      .on_layer =
                          [this](const engine::StepBatch& batch, uint32_t layer) {
                            for (auto* client : clients_)
                              client->on_layer(batch, layer, local_now());
                          },
                      .on_done =
                          [this](engine::StepBatch& batch) {
                            for (auto* client : clients_) client->on_done(batch, local_now());
                            batch.clear();
                            free_.push_back(&batch);
                            work_added_ = true;
                          },
                      .later = [this](Duration after,
                                      Timeline::Event event) { later(after, std::move(event)); }});
}

void Worker::start() { tick(); }

engine::StepLimits Worker::limits() const {
  const uint32_t context = std::min(200u, shape_.num_blocks * shape_.block_tokens);
  return {.max_rows = shape_.chunk_tokens + shape_.max_sequences,
          .max_sequences = shape_.max_sequences + 1 + shape_.chunk_tokens / shape_.block_tokens,
          .max_slots = shape_.max_sequences * 2,
          .max_context = context};
}

const kvtransfer::Endpoint& Worker::endpoint() const {
  return core_->driver().hello().ranks[0].endpoint;
}

proto::WorkerHello Worker::hello(const std::string& address) const {
  proto::WorkerHello h;
  h.set_protocol_min(1);
  h.set_protocol_max(shape_.protocol);
  h.set_worker(shape_.id.value);
  h.set_name(name());
  h.set_role(shape_.role);
  h.set_model("m");
  h.set_model_key("m");
  h.set_numerics("sim");
  h.set_block_tokens(shape_.block_tokens);
  h.set_total_blocks(shape_.num_blocks);
  h.set_max_context(limits().max_context);
  h.set_max_sequences(shape_.max_sequences);
  h.set_vocab_size(Engine::kVocabulary);
  h.set_pair_address(address);
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
  bool any = false;
  while (!free_.empty()) {
    engine::StepBatch& batch = *free_.back();
    engine::StepBudget budget{.rows = limits().max_rows, .sequences = limits().max_sequences};
    for (auto* client : clients_) client->plan(budget, batch, local_now());
    if (batch.empty()) break;
    batch.step = next_step_++;
    free_.pop_back();
    engine_->submit(&batch);
    any = true;
  }
  return any;
}

TimePoint Worker::next_time() const {
  return std::max(clock().true_time(core_->driver().next_deadline()), paused_until());
}

void Worker::tick() {
  core_->expire(local_now());
  send_load();
  later(kTick, [this] { tick(); });
}

void Worker::send_load() {
  if (core_ == nullptr) return;
  proto::Frame frame;
  *frame.mutable_load() = core_->load();
  std::string text = frame.SerializeAsString();
  if (text == last_load_) return;
  last_load_ = std::move(text);
  outside_.to_all_routers(*this, frame);
}

void Worker::send(RouterId router, const proto::Frame& frame) {
  outside_.to_router(*this, router, frame);
}

void Worker::peer_lost(WorkerId worker) { outside_.gave_up(*this, worker); }

}  // namespace baton::sim
