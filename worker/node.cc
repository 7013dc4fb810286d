#include "worker/node.h"

#include <random>
#include <utility>

#include "common/base/log.h"
#include "common/net/protocol.h"
#include "common/serving/events.h"

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

std::string host_of(const std::string& address) {
  const auto where = net::split_host_port(address);
  return where ? where->host : std::string();
}

// Where peers pair with a worker that listens at `listen` with this port. Empty if only who reaches
// it knows: 0.0.0.0 would name the peer itself.
std::string pair_address(const std::string& listen, uint16_t port) {
  const std::string host = host_of(listen);
  if (net::is_unspecified(host)) return {};
  return net::join_host_port(host, port);
}

}  // namespace

Node::Node(boost::asio::io_context& io, const WorkerConfig& config)
    : io_(io),
      config_(config),
      id_(random_id()),
      metrics_(Metrics::Labels{{"model_name", config.model_name}}),
      hub_(kvtransfer::make_loopback_hub()),
      sessions_(io, {.secrets = config.secrets},
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
                 .on_peer_lost = [this](WorkerId peer) { peer_connection_lost(peer); }}),
      pairing_(io, {.secrets = config.secrets},
               {.hello = [this] { return kvtransfer::encode(driver_->hello()); },
                .on_hello = [this](const std::string& hello) { return add_peer(hello); },
                .on_lost = [this](WorkerId peer) { peer_connection_lost(peer); }}),
      tick_timer_(io) {}

Node::~Node() {
  if (engine_) engine_->stop();
}

// --- starting ------------------------------------------------------------------------------------

status Node::start() {
  for (const auto& address : {config_.listen, config_.metrics_listen}) {
    if (net::is_loopback(host_of(address))) continue;
    if (!config_.trusted_network) {
      return error(Errc::kInvalidArgument,
                   "will not listen on " + address +
                       ": whoever reaches a worker can read its memory; set trusted_network if "
                       "only routers and workers can");
    }
  }
  if (config_.secrets.empty() && !net::is_loopback(host_of(config_.listen))) {
    return error(Errc::kInvalidArgument,
                 "will not listen on " + config_.listen +
                     " without a secret that routers and workers share: set secret_file, the same "
                     "for all of them");
  }
  BATON_CHECK_OK(load_model());
  BATON_CHECK_OK(make_handoff());
  BATON_CHECK_OK(make_engine());
  make_services();
  return serve();
}

status Node::serve() {
  BATON_CHECK_OK(step_loop_->start());
  BATON_CHECK_OK(sessions_.listen(config_.listen));
  BATON_TRY(http_, net::serve_http(io_, config_.metrics_listen, http_handlers()));
  tick();
  return {};
}

// --- routers -------------------------------------------------------------------------------------

proto::WorkerHello Node::hello() const {
  proto::WorkerHello h;
  h.set_protocol_min(net::kProtocolMin);
  h.set_protocol_max(net::kProtocolMax);
  h.set_worker(id_.value);
  h.set_name(config_.name);
  h.set_role(config_.role);
  h.set_model(config_.model_name);
  h.set_model_key(model_->model_key().to_string());
  h.set_numerics(model_->numerics());
  h.set_block_tokens(config_.block_tokens);
  h.set_total_blocks(num_blocks_);
  h.set_max_context(limits_.max_context);
  h.set_max_sequences(config_.max_sequences);
  h.set_vocab_size(model_->config().vocab_size);
  h.set_pair_address(config_.advertise.empty() ? pair_address(config_.listen, sessions_.port())
                                               : config_.advertise);
  return h;
}

void Node::on_frame(RouterId router, proto::Frame&& frame) {
  switch (frame.body_case()) {
    case proto::Frame::kSubmit:
      return submit(router, frame.submit());
    case proto::Frame::kReserve:
      return reserve(router, frame.reserve());
    case proto::Frame::kCancel:
      return cancel(router, frame.cancel());
    case proto::Frame::kPeers:
      return pairing_.set_peers(router, frame.peers());
    default:
      LOG_WARN("router {} sent a message that is not for workers", router.value);
  }
}

result<engine::Request> Node::parse(RouterId router, const proto::RequestSpec& spec) {
  if (draining_) return error(Errc::kUnavailable, "this worker is draining");
  auto request = parse_spec(spec, router, request_limits_, Clock::now());
  // What one service has done with a key must not be undone by the other.
  if (request && (prefill_->has(request->key) || decode_->has(request->key))) {
    return error(Errc::kInvalidArgument, "the request is here already");
  }
  if (request && !config_.prefix_cache) {
    request->salt += "/unshared/" + std::to_string(++unshared_);
  }
  return request;
}

void Node::submit(RouterId router, const proto::Submit& submit) {
  auto request = parse(router, submit.spec());
  if (!request) {
    const RequestKey key{router, RequestId(submit.spec().request()),
                         Generation(submit.spec().generation())};
    proto::Frame frame;
    serving::fill_failed(key, request.error(), request.error().code == Errc::kUnavailable,
                         *frame.mutable_failed());
    return send(router, frame);
  }
  prefill::PrefillRequest prefill;
  prefill.prompt_logprobs = submit.prompt_logprobs();
  prefill.sample = request->sampling.max_tokens > 0;
  prefill.request = std::move(*request);
  prefill_->submit(std::move(prefill), WorkerId(submit.sink()), Clock::now());
}

void Node::reserve(RouterId router, const proto::Reserve& reserve) {
  auto request = parse(router, reserve.spec());
  if (!request) {
    proto::Frame frame;
    auto* reply = frame.mutable_reserve_reply();
    reply->set_request(reserve.spec().request());
    reply->set_generation(reserve.spec().generation());
    reply->set_reason(request.error().message);
    return send(router, frame);
  }
  decode_->reserve(std::move(*request), WorkerId(reserve.source()), Clock::now());
}

void Node::cancel(RouterId router, const proto::Cancel& cancel) {
  const RequestKey key{router, RequestId(cancel.request()), Generation(cancel.generation())};
  if (cancel.one_choice()) return decode_->cancel_choice(key, cancel.choice());
  prefill_->cancel(key, Clock::now());
  decode_->cancel(key, Clock::now());
}

void Node::router_lost(RouterId router) {
  if (prefill_->idle() && decode_->idle()) {
    LOG_INFO("router {} is gone", router.value);
  } else {
    LOG_WARN("router {} is gone; its requests end", router.value);
  }
  pairing_.forget_router(router);
  prefill_->cancel_router(router, Clock::now());
  decode_->cancel_router(router, Clock::now());
}

proto::Load Node::load() const {
  const auto prefill = prefill_->snapshot();
  const auto decode = decode_->snapshot();
  proto::Load load;
  load.set_waiting(prefill.waiting);
  load.set_running(prefill.running + decode.running + decode.reserved);
  load.set_free_blocks(pool_->available());
  load.set_total_blocks(pool_->size());
  load.set_queued_tokens(prefill.queued_tokens);
  load.set_role(config_.role);
  load.set_draining(draining_);
  for (const WorkerId peer : driver_->peers()) {
    if (driver_->peer_up(peer)) load.add_paired(peer.value);
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
  sessions_.broadcast(frame);
}

void Node::tick() {
  const TimePoint now = Clock::now();
  prefill_->expire(now);
  decode_->expire(now);
  send_load();
  if (drained_ && (now >= drain_until_ || (prefill_->idle() && decode_->idle()))) {
    std::exchange(drained_, nullptr)();
    return;
  }
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code ec) {
    if (!ec && !alive.expired()) tick();
  });
}

void Node::drain(milliseconds grace, std::function<void()> done) {
  draining_ = true;
  drain_until_ = Clock::now() + grace;
  drained_ = [this, done = std::move(done)] {
    sessions_.close();
    done();
  };
  send_load();
}

// --- peers ---------------------------------------------------------------------------------------

result<WorkerId> Node::add_peer(const std::string& bytes) {
  BATON_TRY(const kvtransfer::Hello hello, kvtransfer::decode_hello(bytes));
  BATON_CHECK_OK(driver_->add_peer(hello, Clock::now()));
  handoff_touched();
  return hello.worker;
}

result<WorkerId> Node::on_pair(const proto::PairRequest& request, proto::PairReply& reply) {
  BATON_TRY(const WorkerId peer, add_peer(request.hello()));
  reply.set_hello(kvtransfer::encode(driver_->hello()));
  return peer;
}

void Node::peer_connection_lost(WorkerId peer) {
  driver_->remove_peer(peer, Clock::now());
  handoff_touched();
  send_load();
}

void Node::peer_up(WorkerId worker, std::string_view transport) {
  LOG_INFO("paired with worker {:x} over {}", worker.value, transport);
  send_load();
}

void Node::peer_lost(WorkerId worker, const Error& why) {
  LOG_INFO("worker {:x} is lost: {}", worker.value, why.message);
  // Whichever side dialled, the other one pairs anew.
  sessions_.drop_peer(worker);
  pairing_.repair(worker);
}

// --- HandoffListener -----------------------------------------------------------------------------

void Node::joined(const kvtransfer::Joined& joined) { decode_->joined(joined); }
void Node::sink_failed(const RequestKey& key, const Error& why) { decode_->sink_failed(key, why); }
void Node::sink_released(const RequestKey&, std::span<const BlockId> blocks) {
  decode_->sink_released(blocks);
}
void Node::source_released(const kvtransfer::SourceReleased& released) {
  prefill_->source_released(released);
}
void Node::source_failed(const kvtransfer::SourceFailed& failed) {
  prefill_->source_failed(failed);
}
void Node::source_refused(const RequestKey& key, Duration) {
  LOG_INFO("request {} is parked: the decode worker is full", key.request.value);
}
void Node::source_sink_lost(const RequestKey& key, const Error& why) {
  prefill_->source_sink_lost(key, why, Clock::now());
}

// --- ServiceHost ---------------------------------------------------------------------------------

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
             return draining_ ? net::HttpReply{503, "draining\n", "text/plain"}
                              : net::HttpReply{200, "ok\n", "text/plain"};
           }}};
}

void Node::update_gauges() {
  const auto counts = pool_->counts();
  const auto blocks = [&](const char* state, uint32_t n) {
    metrics_.gauge("baton_kv_blocks", "KV blocks by state.", {{"state", state}}).Set(n);
  };
  blocks("free", counts.free);
  blocks("active", counts.active);
  blocks("cached", counts.cached);
  blocks("quarantined", counts.quarantined);
  const auto prefill = prefill_->snapshot();
  const auto decode = decode_->snapshot();
  metrics_.gauge("vllm:num_requests_running", "Requests in the engine.")
      .Set(prefill.running + decode.running);
  metrics_.gauge("vllm:num_requests_waiting", "Requests that wait for the engine.")
      .Set(prefill.waiting + decode.reserved);
  metrics_.gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use, 0 to 1.")
      .Set(static_cast<double>(counts.active + counts.quarantined) / pool_->size());
  metrics_.gauge("baton_kv_parked", "Computed prompts whose KV waits for a decode worker.")
      .Set(driver_->source().num_parked());
  metrics_.gauge("baton_kv_reservations", "Requests whose KV is awaited.").Set(decode.reserved);
  metrics_.gauge("baton_routers", "Routers connected.")
      .Set(static_cast<double>(sessions_.num_routers()));
}

result<std::unique_ptr<Worker>> Worker::start(boost::asio::io_context& io,
                                              const WorkerConfig& config) {
  auto node = std::make_unique<Node>(io, config);
  BATON_CHECK_OK(node->start());
  return std::unique_ptr<Worker>(std::move(node));
}

}  // namespace baton::worker
