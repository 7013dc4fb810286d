#include "worker/worker_core.h"

#include <utility>

#include "common/base/log.h"
#include "common/proto/role_name.h"
#include "common/serving/events.h"
#include "kvtransfer/codec.h"

namespace baton::worker {
namespace {

constexpr const char* kIsHere = "the request is here already";

void set_costs(const latency::StepCosts& from, proto::StepCosts& to) {
  to.set_fixed(from.fixed);
  to.set_row(from.row);
  to.set_row_beyond(from.row_beyond);
  to.set_context_token(from.context_token);
  to.set_attended_pair(from.attended_pair);
  to.set_output(from.output);
  to.set_ridge_rows(from.ridge_rows);
}

}  // namespace

WorkerCore::WorkerCore(const CoreConfig& config, CoreHost& host, Metrics& metrics)
    : config_(config),
      host_(host),
      metrics_(metrics),
      pool_(config.num_blocks),
      hasher_(config.model_key, config.handoff.layout.block_tokens, config.prefix_hash),
      digests_(config.num_blocks, config.handoff.layout.num_layers()),
      slots_(config.limits.max_slots),
      role_(config.role) {}

result<std::unique_ptr<WorkerCore>> WorkerCore::create(
    const CoreConfig& config, std::unique_ptr<kvtransfer::Transport> transport, CoreHost& host,
    Metrics& metrics, std::unique_ptr<kvtransfer::DeviceReads> device_reads) {
  std::unique_ptr<WorkerCore> core(new WorkerCore(config, host, metrics));
  BATON_TRY(core->driver_,
            kvtransfer::HandoffDriver::create(config.handoff, std::move(transport), *core, &metrics,
                                              std::move(device_reads)));
  core->make_services();
  return core;
}

void WorkerCore::make_services() {
  prefill::SchedulerConfig prefill;
  prefill.limits = config_.limits;
  prefill.chunk_tokens = config_.chunk_tokens;
  const kvcache::KvLayout& layout = config_.handoff.layout;
  prefill.layer_token_bytes = config_.layer_token_bytes != 0
                                  ? config_.layer_token_bytes
                                  : layout.layer_bytes() / layout.block_tokens;
  // What one request leaves in the cache, another is to hand off; a mixed worker hands nothing off,
  // unless it may become one that does.
  prefill.always_digest = config_.auto_role || config_.role == proto::ROLE_PREFILL;
  prefill_.emplace(
      prefill, prefill::Resources{pool_, hasher_, digests_, slots_}, *driver_, host_,
      [this](engine::HandOver&& prompt, TimePoint now) { decode_->adopt(std::move(prompt), now); },
      metrics_);
  decode::SchedulerConfig decode;
  decode.limits = config_.limits;
  decode.vocab_size = config_.requests.vocab_size;
  decode.preempt_every_n_steps = config_.preempt_every;
  decode_.emplace(decode, decode::Resources{pool_, hasher_, slots_}, *driver_, host_, metrics_);
}

// --- routers -------------------------------------------------------------------------------------

void WorkerCore::on_frame(RouterId router, const proto::Frame& frame, TimePoint now) {
  switch (frame.body_case()) {
    case proto::Frame::kSubmit:
      submit(router, frame.submit(), now);
      return host_.work_came();
    case proto::Frame::kReserve:
      reserve(router, frame.reserve(), now);
      return host_.work_came();
    case proto::Frame::kCancel:
      return cancel(router, frame.cancel(), now);
    case proto::Frame::kRetarget:
      return retarget(router, frame.retarget(), now);
    case proto::Frame::kSetRole:
      return set_role(router, frame.set_role().role());
    default:
      LOG_WARN("router {} sent a message that is not for workers", router.value);
  }
}

result<engine::Request> WorkerCore::parse(RouterId router, const proto::RequestSpec& spec,
                                          TimePoint now) {
  if (draining_) return error(Errc::kUnavailable, "this worker is draining");
  auto request = parse_spec(spec, router, config_.requests, now);
  if (request && !config_.prefix_cache) {
    request->salt += "/unshared/" + std::to_string(++unshared_);
  }
  return request;
}

// What one service has done with a key must not be undone by the other.
bool WorkerCore::is_here(const RequestKey& key) const {
  return prefill_->has(key) || decode_->has(key);
}

void WorkerCore::fail(RouterId router, const proto::RequestSpec& spec, const Error& why) {
  const RequestKey key{router, RequestId(spec.request()), Generation(spec.generation())};
  proto::Frame frame;
  serving::fill_failed(key, why, why.code == Errc::kUnavailable, *frame.mutable_failed());
  host_.send(router, frame);
}

void WorkerCore::submit(RouterId router, const proto::Submit& submit, TimePoint now) {
  auto request = parse(router, submit.spec(), now);
  if (request && is_here(request->key)) request = error(Errc::kInvalidArgument, kIsHere);
  if (!request) return fail(router, submit.spec(), request.error());
  prefill::PrefillRequest prefill;
  prefill.prompt_logprobs = submit.prompt_logprobs();
  prefill.sample = request->sampling.max_tokens > 0;
  prefill.request = std::move(*request);
  prefill_->submit(std::move(prefill), WorkerId(submit.sink()), !submit.sink_waits(), now);
}

// "Not now" is answered by a reply that grants nothing: the router asks again, or another worker.
// What can never be had here is a failure.
void WorkerCore::reserve(RouterId router, const proto::Reserve& reserve, TimePoint now) {
  auto request = parse(router, reserve.spec(), now);
  if (!request && request.error().code != Errc::kUnavailable) {
    return fail(router, reserve.spec(), request.error());
  }
  // Not a failure: that would end the one that is here.
  if (request && is_here(request->key)) request = error(Errc::kUnavailable, kIsHere);
  if (request && config_.auto_role && role_ == proto::ROLE_PREFILL) {  // the router will hear of it
    request = error(Errc::kUnavailable, "this worker has become a prefill worker");
  }
  if (!request) {
    proto::Frame frame;
    auto* reply = frame.mutable_reserve_reply();
    reply->set_request(reserve.spec().request());
    reply->set_generation(reserve.spec().generation());
    reply->set_reason(request.error().message);
    return host_.send(router, frame);
  }
  decode_->reserve(std::move(*request), WorkerId(reserve.source()), reserve.may_wait(), now);
}

void WorkerCore::cancel(RouterId router, const proto::Cancel& cancel, TimePoint now) {
  const RequestKey key{router, RequestId(cancel.request()), Generation(cancel.generation())};
  if (cancel.one_choice()) return decode_->cancel_choice(key, cancel.choice());
  prefill_->cancel(key, now);
  decode_->cancel(key, now);
}

void WorkerCore::retarget(RouterId router, const proto::Retarget& retarget, TimePoint now) {
  const RequestId request(retarget.request());
  prefill_->retarget({router, request, Generation(retarget.generation())},
                     Generation(retarget.next_generation()), WorkerId(retarget.sink()), now);
}

// What is here ends as it began: both services and the hand-off always run, whatever the role. A
// role is what new work comes here for; only what would stay for long, a reservation, is refused by
// it: prompts that crossed the change on their way are computed.
void WorkerCore::set_role(RouterId router, proto::Role role) {
  const bool known =
      role == proto::ROLE_PREFILL || role == proto::ROLE_DECODE || role == proto::ROLE_MIXED;
  if (!config_.auto_role || !known) {
    LOG_WARN("router {} gives this worker a role that it cannot take", router.value);
    return;
  }
  if (std::exchange(role_, role) == role) return;
  LOG_INFO("this worker's role is {} from now on, by router {}", proto::role_name(role),
           router.value);
  host_.load_changed();
}

void WorkerCore::router_lost(RouterId router, TimePoint now) {
  prefill_->cancel_router(router, now);
  decode_->cancel_router(router, now);
}

void WorkerCore::expire(TimePoint now) {
  prefill_->expire(now);
  decode_->expire(now);
}

proto::Load WorkerCore::load(const latency::StepCosts* costs) const {
  const auto prefill = prefill_->snapshot();
  const auto decode = decode_->snapshot();
  proto::Load load;
  load.set_waiting(prefill.waiting + decode.waiting);
  load.set_running(prefill.running + decode.running + decode.reserved);
  load.set_free_blocks(pool_.available());
  load.set_total_blocks(pool_.size());
  load.set_queued_tokens(prefill.queued_tokens);
  load.set_sequences(decode.running);
  load.set_context_tokens(decode.context);
  load.set_role(role_);
  load.set_draining(draining_);
  load.set_waiting_blocks(driver_->source().waiting_blocks());
  load.set_most_waiting_blocks(driver_->source().most_waiting_blocks());
  for (const WorkerId peer : driver_->peers()) {
    if (driver_->peer_up(peer)) load.add_paired(peer.value);
  }
  if (const latency::LinkModel& link = driver_->link(); link.error().count() > 0) {
    const kvcache::KvLayout& layout = config_.handoff.layout;
    const double token_bytes = static_cast<double>(layout.block_bytes()) / layout.block_tokens;
    load.set_link_latency(link.costs().latency);
    load.set_link_token(link.costs().byte * token_bytes);
  }
  if (costs != nullptr) {
    set_costs(*costs, *load.mutable_step_costs());
    const Duration queued = prefill_->queued_time(*costs);
    load.set_queued_us(
        static_cast<uint64_t>(std::chrono::duration_cast<microseconds>(queued).count()));
  }
  return load;
}

void WorkerCore::add_others(RouterId told, proto::Load& load) const {
  const prefill::Taken taken = prefill_->taken_from_others(told);
  proto::PromptsBegun& out = *load.mutable_of_others();
  out.set_prompts(taken.prompts);
  out.set_tokens(taken.tokens);
  out.set_cached_tokens(taken.cached_tokens);
  load.set_sequences_of_others(prefill_->sequences_of_others(told) +
                               decode_->sequences_of_others(told));
}

// --- peers ---------------------------------------------------------------------------------------

std::string WorkerCore::hello() const { return kvtransfer::encode(driver_->hello()); }

result<WorkerId> WorkerCore::add_peer(const std::string& bytes, TimePoint now) {
  BATON_TRY(const kvtransfer::Hello hello, kvtransfer::decode_hello(bytes));
  BATON_CHECK_OK(driver_->add_peer(hello, now));
  host_.handoff_touched();
  return hello.worker;
}

void WorkerCore::remove_peer(WorkerId peer, TimePoint now) {
  driver_->remove_peer(peer, now);
  host_.handoff_touched();
  host_.load_changed();
}

// --- HandoffListener -----------------------------------------------------------------------------

void WorkerCore::joined(const kvtransfer::Joined& joined, TimePoint now) {
  decode_->joined(joined, now);
}
void WorkerCore::sink_failed(const RequestKey& key, const Error& why) {
  decode_->sink_failed(key, why);
}
void WorkerCore::sink_released(const RequestKey&, std::span<const BlockId> blocks) {
  decode_->sink_released(blocks);
}
void WorkerCore::source_released(const kvtransfer::SourceReleased& released) {
  prefill_->source_released(released);
}
void WorkerCore::source_failed(const kvtransfer::SourceFailed& failed) {
  prefill_->source_failed(failed);
}
void WorkerCore::source_refused(const RequestKey& key, Duration) {
  LOG_DEBUG("request {} is parked: the decode worker is full", key.request.value);
}
void WorkerCore::source_sink_lost(const RequestKey& key, const Error& why, TimePoint now) {
  prefill_->source_sink_lost(key, why, now);
}
void WorkerCore::peer_up(WorkerId, std::string_view) { host_.load_changed(); }
void WorkerCore::peer_lost(WorkerId worker, const Error& why) {
  LOG_INFO("worker {:x} is lost: {}", worker.value, why.message);
  host_.peer_lost(worker);
}

}  // namespace baton::worker
