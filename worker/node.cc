#include "worker/node.h"

#include <random>
#include <utility>

#include "common/base/log.h"
#include "common/net/protocol.h"
#include "worker/request_log.h"

namespace baton::worker {
namespace {

constexpr milliseconds kTick{50};
constexpr milliseconds kLoadEvery{1000};

WorkerId random_id() {
  std::random_device random;
  uint64_t id = 0;
  while (id == 0) id = (static_cast<uint64_t>(random()) << 32) | random();
  return WorkerId(id);
}

// Where peers pair with a worker that listens at `listen` with this port. Empty if only who reaches
// it knows: 0.0.0.0 would name the peer itself.
std::string pair_address(const std::string& listen, uint16_t port) {
  const auto where = net::split_host_port(listen);
  if (!where || net::is_unspecified(where->host)) return {};
  return net::join_host_port(where->host, port);
}

}  // namespace

Node::Node(boost::asio::io_context& io, const WorkerConfig& config, std::function<void()> failed)
    : io_(io),
      config_(config),
      id_(random_id()),
      metrics_(Metrics::Labels{{"model_name", config.model_name}}),
      hub_(kvtransfer::make_loopback_hub()),
      sessions_(
          io, {.secrets = config.secrets, .tls = config.tls, .metrics = &metrics_},
          {.hello = [this] { return hello(); },
           .on_router =
               [this](RouterId router) {
                 proto::Frame frame;
                 *frame.mutable_load() = load();
                 sessions_.send(router, frame);
               },
           .on_frame = [this](RouterId router,
                              proto::Frame&& frame) { on_frame(router, std::move(frame)); },
           .on_router_lost = [this](RouterId router) { router_lost(router); },
           .on_pair = [this](const proto::PairRequest& request,
                             proto::PairReply& reply) { return on_pair(request, reply); },
           .on_peer_lost = [this](WorkerId peer) { core_->remove_peer(peer, Clock::now()); }}),
      pairing_(
          io, {.secrets = config.secrets, .tls = config.tls},
          {.hello = [this] { return core_->hello(); },
           .on_hello =
               [this](const std::string& hello) { return core_->add_peer(hello, Clock::now()); },
           .on_lost = [this](WorkerId peer) { core_->remove_peer(peer, Clock::now()); }}),
      tick_timer_(io),
      load_timer_(io),
      failed_(std::move(failed)) {}

Node::~Node() {
  if (engine_) engine_->stop();
}

// --- starting ------------------------------------------------------------------------------------

status Node::start() {
  BATON_CHECK_OK(check_config(config_));
  BATON_CHECK_OK(load_model());
  BATON_CHECK_OK(make_core());
  BATON_CHECK_OK(make_engine());
  return serve();
}

status Node::serve() {
  BATON_CHECK_OK(step_loop_->start());
  if (ranks_) {
    BATON_CHECK_OK(
        ranks_->watch(io_, [this] { fail(error(Errc::kUnavailable, "a rank has ended")); }));
  }
  BATON_CHECK_OK(sessions_.listen(config_.listen));
  BATON_TRY(http_, net::serve_http(io_, config_.metrics_listen, http_handlers()));
  tick();
  return {};
}

// Nothing that was computed since is believed, and what this worker had is others' to redo: a
// router sees the end of its connection.
void Node::fail(const Error& why) {
  if (!failed_) return;
  if (ranks_) ranks_->collective().give_up(why);  // the engine waits for nobody any more
  const Error said = ranks_ ? ranks_->why_lost(why) : why;
  LOG_ERROR("this worker ends: {}", said.message);
  std::exchange(failed_, nullptr)();
}

// --- routers -------------------------------------------------------------------------------------

proto::WorkerHello Node::hello() const {
  proto::WorkerHello h;
  h.set_protocol_min(net::kProtocolMin);
  h.set_protocol_max(net::kProtocolMax);
  h.set_worker(id_.value);
  h.set_name(config_.name);
  h.set_role(core_->role());
  h.set_auto_role(config_.auto_role);
  h.set_model(config_.model_name);
  h.set_model_key(served_.key.to_string());
  h.set_numerics(served_.numerics);
  h.set_block_tokens(config_.block_tokens);
  h.set_total_blocks(num_blocks_);
  h.set_max_context(limits_.max_context);
  h.set_max_sequences(config_.max_sequences);
  h.set_vocab_size(served_.vocab_size);
  h.set_step_tokens(limits_.max_rows);
  h.set_chunk_tokens(config_.chunk_tokens == 0 ? limits_.max_context : config_.chunk_tokens);
  h.set_pair_address(config_.advertise.empty() ? pair_address(config_.listen, sessions_.port())
                                               : config_.advertise);
  return h;
}

void Node::on_frame(RouterId router, proto::Frame&& frame) {
  if (frame.has_peers()) return pairing_.set_peers(router, frame.peers());
  if (spdlog::should_log(spdlog::level::info)) {
    if (const std::string text = arrival_text(frame); !text.empty()) LOG_INFO("{}", text);
  }
  core_->on_frame(router, frame, Clock::now());
}

void Node::router_lost(RouterId router) {
  if (core_->idle()) {
    LOG_INFO("router {} is gone", router.value);
  } else {
    LOG_WARN("router {} is gone; its requests end", router.value);
  }
  pairing_.forget_router(router);
  core_->router_lost(router, Clock::now());
}

proto::Load Node::load() const {
  proto::Load load = core_->load(step_times_ ? &step_times_->model().costs() : nullptr);
  load.set_guessed(!profile_ && (!step_times_ || step_times_->guessed()));
  load.set_num_routers(static_cast<uint32_t>(sessions_.num_routers()));
  if (!config_.auto_role) return load;
  for (const RouterId router : sessions_.routers(net::kMostNamedRouters)) {
    load.add_routers(router.value);
  }
  return load;
}

void Node::send_load() {
  proto::Frame frame;
  *frame.mutable_load() = load();
  const std::string text = frame.SerializeAsString();
  const TimePoint now = Clock::now();
  if (text == last_load_ && now - last_load_at_ < kLoadEvery) return;
  last_load_ = text;
  last_load_at_ = now;
  if (sessions_.num_routers() < 2) return sessions_.broadcast(frame);
  for (const RouterId router : sessions_.routers(sessions_.num_routers())) {
    core_->add_others(router, *frame.mutable_load());
    sessions_.send(router, frame);
  }
}

// Whoever placed it knows. Others would place by what they last heard, all of them on the worker
// that looked best then.
void Node::work_came() {
  if (load_is_due_ || sessions_.num_routers() < 2) return;
  load_is_due_ = true;
  load_timer_.expires_at(std::max(Clock::now(), last_load_at_ + kLoadSoon));
  load_timer_.async_wait([this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code ec) {
    if (ec || alive.expired()) return;
    load_is_due_ = false;
    send_load();
  });
}

void Node::tick() {
  const TimePoint now = Clock::now();
  core_->expire(now);
  send_load();
  if (drained_ && (now >= drain_until_ || core_->idle())) {
    std::exchange(drained_, nullptr)();
    return;
  }
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code ec) {
    if (!ec && !alive.expired()) tick();
  });
}

void Node::drain(milliseconds grace, std::function<void()> done) {
  core_->drain();
  drain_until_ = Clock::now() + grace;
  drained_ = [this, done = std::move(done)] {
    sessions_.close();
    done();
  };
  send_load();
}

// --- peers ---------------------------------------------------------------------------------------

result<WorkerId> Node::on_pair(const proto::PairRequest& request, proto::PairReply& reply) {
  BATON_TRY(const WorkerId peer, core_->add_peer(request.hello(), Clock::now()));
  reply.set_hello(core_->hello());
  return peer;
}

// Whichever side dialled, the other one pairs anew.
void Node::peer_lost(WorkerId worker) {
  sessions_.drop_peer(worker);
  pairing_.repair(worker);
}

// --- CoreHost ------------------------------------------------------------------------------------

void Node::send(RouterId router, const proto::Frame& frame) { sessions_.send(router, frame); }
void Node::work_added() {
  if (step_loop_) step_loop_->kick();
}
void Node::handoff_touched() { handoff_loop_->kick(); }

// --- metrics and probes --------------------------------------------------------------------------

net::HttpHandlers Node::http_handlers() {
  return {{"/metrics",
           [this] {
             update_gauges();
             return net::HttpReply{.body = metrics_.serialize()};
           }},
          {"/health",
           [this] {
             const auto running = engine_->running_for(Clock::now());
             const bool stuck = running && *running > seconds(60);
             return stuck ? net::HttpReply{503, "a step has been running for a minute\n",
                                           "text/plain"}
                          : net::HttpReply{200, "ok\n", "text/plain"};
           }},
          {"/ready", [this] {
             return core_->draining() ? net::HttpReply{503, "draining\n", "text/plain"}
                                      : net::HttpReply{200, "ok\n", "text/plain"};
           }}};
}

void Node::update_gauges() {
  process_metrics_.update();
  step_times_->update_gauges(metrics_);
  tell_actual_ratio(metrics_, "transfer", core_->driver().link().error());
  const auto counts = core_->pool().counts();
  const auto blocks = [&](const char* state, uint32_t n) {
    metrics_.gauge("baton_kv_blocks", "KV blocks by state.", {{"state", state}}).Set(n);
  };
  blocks("free", counts.free);
  blocks("active", counts.active);
  blocks("cached", counts.cached);
  blocks("quarantined", counts.quarantined);
  const auto prefill = core_->prefill();
  const auto decode = core_->decode();
  metrics_.gauge("vllm:num_requests_running", "Requests in the engine.")
      .Set(prefill.running + decode.running);
  metrics_.gauge("vllm:num_requests_waiting", "Requests that wait for the engine.")
      .Set(prefill.waiting + decode.reserved + decode.waiting);
  metrics_.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.")
      .Set(static_cast<double>(counts.active + counts.quarantined) / core_->pool().size());
  metrics_.gauge("baton_kv_parked", "Computed prompts whose KV waits for a decode worker.")
      .Set(core_->driver().source().num_parked());
  metrics_.gauge("baton_kv_parked_blocks_limit", "Blocks of such prompts that may wait at once.")
      .Set(core_->driver().source().most_waiting_blocks());
  metrics_.gauge("baton_kv_reservations", "Requests whose KV is awaited.").Set(decode.reserved);
  metrics_.gauge("baton_routers", "Routers connected.")
      .Set(static_cast<double>(sessions_.num_routers()));
  const auto has_role = [&](const char* name, proto::Role role) {
    metrics_
        .gauge("baton_worker_role", "1 for the role that this worker has now.", {{"role", name}})
        .Set(core_->role() == role ? 1 : 0);
  };
  has_role("prefill", proto::ROLE_PREFILL);
  has_role("decode", proto::ROLE_DECODE);
  has_role("mixed", proto::ROLE_MIXED);
}

result<std::unique_ptr<Worker>> Worker::start(boost::asio::io_context& io,
                                              const WorkerConfig& config,
                                              std::function<void()> failed) {
  auto node = std::make_unique<Node>(io, config, std::move(failed));
  BATON_CHECK_OK(node->start());
  return std::unique_ptr<Worker>(std::move(node));
}

}  // namespace baton::worker
