#include "decode/service.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/kvcache/digest.h"
#include "common/serving/events.h"

namespace baton::decode {
namespace {

constexpr Duration kWordEvery = seconds(1);

uint64_t to_us(Duration d) {
  return static_cast<uint64_t>(std::chrono::duration_cast<microseconds>(d).count());
}

}  // namespace

Service::Service(const SchedulerConfig& config, const Resources& resources,
                 kvtransfer::HandoffDriver& driver, serving::ServiceHost& host, Metrics& metrics)
    : scheduler_(config, resources),
      pool_(resources.pool),
      driver_(driver),
      host_(host),
      token_metrics_(metrics.counter("vllm:generation_tokens_total", "Tokens drawn."),
                     metrics.histogram("vllm:inter_token_latency_seconds",
                                       "Between two tokens of one output.", itl_bounds_seconds()),
                     itl_bounds_seconds()),
      decode_seconds_(metrics.histogram("vllm:request_decode_time_seconds",
                                        "From a request's KV being here to its last token.",
                                        e2e_bounds_seconds())),
      e2e_seconds_(metrics.histogram("vllm:e2e_request_latency_seconds",
                                     "From a request's arrival to its last token here.",
                                     e2e_bounds_seconds())),
      preemptions_(metrics.counter("vllm:num_preemptions_total",
                                   "Sequences that gave way for want of blocks.")) {}

void Service::reserve(engine::Request request, WorkerId source, bool may_wait, TimePoint now) {
  const RequestKey key = request.key;
  const uint32_t granule = driver_.peer_up(source) ? driver_.granule_tokens(source) : 0;
  if (granule == 0) return refuse(key, milliseconds(100), "not paired with that prefill worker");
  Request entry = start(request, source, now);
  auto reservation = scheduler_.reserve({std::move(request), granule, may_wait});
  if (!reservation) {
    const bool later = reservation.error().code == Errc::kResourceExhausted;
    return fail(key, reservation.error(), later);
  }
  if (const auto* full = std::get_if<Full>(&*reservation)) {
    return refuse(key, full->retry_after, "no room for its KV cache");
  }
  requests_[key] = std::move(entry);
  if (const auto* waiting = std::get_if<Waiting>(&*reservation)) {
    return let_wait(key, waiting->estimate);
  }
  grant(key, std::get<Granted>(*reservation), now);
}

Service::Request Service::start(const engine::Request& request, WorkerId source, TimePoint now) {
  const engine::Sampling& sampling = request.sampling;
  return {.first_choice = sampling.first_choice,
          .choices_left = sampling.num_choices,
          .want_logprobs = sampling.params.want_logprobs,
          .source = source,
          .num_tokens = request.num_tokens(),
          .token_hash = source == WorkerId() ? 0 : kvcache::hash_tokens(request.tokens),
          .deadline = request.deadline,
          .last_token = std::vector<TimePoint>(sampling.num_choices, now),
          .arrival = request.arrival,
          .decoding_since = now};
}

void Service::grant(const RequestKey& key, const Granted& granted, TimePoint now) {
  Request& entry = requests_.at(key);
  const uint32_t block_tokens = driver_.hello().layout.block_tokens;
  kvtransfer::SinkReserve reserve;
  reserve.key = key;
  reserve.source = entry.source;
  reserve.num_tokens = entry.num_tokens;
  reserve.first_token = std::min(granted.first_lacking_block * block_tokens, entry.num_tokens);
  reserve.blocks.assign(granted.blocks.begin() + granted.first_lacking_block, granted.blocks.end());
  reserve.token_hash = entry.token_hash;
  reserve.deadline = entry.deadline;
  const std::vector<BlockId> lacking = reserve.blocks;
  const uint32_t cached = reserve.first_token;
  entry.waiting = false;
  entry.reserved = true;
  entry.lacking = lacking;
  if (const status sent = driver_.reserve(std::move(reserve), now); !sent) {
    requests_.erase(key);
    (void)scheduler_.cancel(key);
    sink_released(lacking);  // nothing was asked to write there
    return refuse(key, milliseconds(100), sent.error().message);
  }
  if (!requests_.contains(key)) return;  // lost with its source: sink_failed() said so
  proto::Frame frame;
  auto* reply = frame.mutable_reserve_reply();
  reply->set_request(key.request.value);
  reply->set_generation(key.generation.value);
  reply->set_granted(true);
  reply->set_cached_tokens(cached);
  host_.send(key.router, frame);
  host_.handoff_touched();
}

void Service::let_wait(const RequestKey& key, Duration estimate) {
  requests_.at(key).waiting = true;
  proto::Frame frame;
  auto* reply = frame.mutable_reserve_reply();
  reply->set_request(key.request.value);
  reply->set_generation(key.generation.value);
  reply->set_waiting(true);
  reply->set_retry_after_us(to_us(estimate));
  host_.send(key.router, frame);
}

// So that they keep what they have parked for us.
void Service::tell_who_waits(TimePoint now) {
  if (now < next_word_) return;
  next_word_ = now + kWordEvery;
  for (const auto& [key, request] : requests_) {
    if (request.waiting) driver_.refuse(key, request.source, kWordEvery, now);
  }
}

void Service::refuse(const RequestKey& key, Duration retry_after, std::string reason) {
  proto::Frame frame;
  auto* reply = frame.mutable_reserve_reply();
  reply->set_request(key.request.value);
  reply->set_generation(key.generation.value);
  reply->set_retry_after_us(to_us(retry_after));
  reply->set_reason(std::move(reason));
  host_.send(key.router, frame);
}

void Service::adopt(engine::HandOver&& prompt, TimePoint now) {
  const RequestKey key = prompt.request.key;
  Request entry = start(prompt.request, WorkerId(), now);
  if (const status in = scheduler_.adopt(std::move(prompt), events_); !in) {
    return fail(key, in.error(), false);
  }
  requests_[key] = std::move(entry);
  take(now);
  host_.work_added();
}

void Service::cancel(const RequestKey& key, TimePoint now) {
  const auto found = requests_.find(key);
  if (found == requests_.end()) return;
  if (found->second.reserved && driver_.cancel(key, now)) {
    return host_.handoff_touched();  // sink_failed() ended it
  }
  requests_.erase(key);
  (void)scheduler_.cancel(key);  // kNotFound: it has just ended by itself
  host_.work_added();            // room for another
}

uint32_t Service::sequences_of_others(RouterId router) const {
  uint32_t sequences = 0;
  for (const auto& [key, request] : requests_) {
    if (key.router != router) sequences += request.choices_left;
  }
  return sequences;
}

bool Service::Request::is_wanted(uint32_t choice) const {
  return choice >= first_choice && choice - first_choice < last_token.size() &&
         std::ranges::find(unwanted, choice) == unwanted.end();
}

void Service::cancel_choice(const RequestKey& key, uint32_t choice) {
  const auto found = requests_.find(key);
  if (found == requests_.end()) return;
  Request& request = found->second;
  if (request.reserved || request.waiting) {
    if (request.is_wanted(choice)) request.unwanted.push_back(choice);
  } else if (scheduler_.cancel_choice(key, choice)) {
    choice_over(key);
    host_.work_added();
  }
}

void Service::cancel_router(RouterId router, TimePoint now) {
  std::vector<RequestKey> keys;
  for (const auto& [key, request] : requests_) {
    if (key.router == router) keys.push_back(key);
  }
  for (const auto& key : keys) cancel(key, now);
  outbox_.erase(router);
  std::erase_if(figures_, [router](const auto& entry) { return entry.first == router; });
}

void Service::expire(TimePoint now) {
  flush_figures();
  scheduler_.expire(now, events_);
  take(now);
  tell_who_waits(now);
}

void Service::plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now) {
  scheduler_.plan(budget, batch, events_);
  scheduler_.admit_waiting(events_);
  take(now);
}

// Not before the step that the hand-off was waited for computes.
void Service::flush_figures() {
  for (const auto& [router, frame] : figures_) host_.send(router, frame);
  figures_.clear();
}

void Service::on_done(const engine::StepBatch& batch, TimePoint now) {
  flush_figures();
  step_ran_ = batch.duration;
  scheduler_.on_step_done(batch, now, events_);
  take(now);
}

void Service::take(TimePoint now) {
  for (const Event& event : events_) {
    if (const auto* token = std::get_if<Token>(&event)) {
      take(*token, now);
      continue;
    }
    flush_tokens();  // what comes next may be the word that a choice is over
    if (const auto* finished = std::get_if<Finished>(&event)) {
      take(*finished, now);
    } else if (const auto* preempted = std::get_if<Preempted>(&event)) {
      take(*preempted);
    } else if (const auto* expired = std::get_if<Expired>(&event)) {
      take(*expired, now);
    } else {
      take(std::get<Admitted>(event), now);
    }
  }
  events_.clear();
  flush_tokens();
  token_metrics_.publish();
}

void Service::take(const Token& token, TimePoint now) {
  const auto found = requests_.find(token.key);
  if (found == requests_.end()) return;
  token_metrics_.add_token();
  if (!std::exchange(found->second.begun, true)) tell_first_step(token.key, found->second, now);
  TimePoint& last = found->second.last_token[token.choice - found->second.first_choice];
  token_metrics_.add_gap(to_seconds(now - last));
  last = now;
  serving::fill_token(token.key, token.choice, token.index, token.result,
                      found->second.want_logprobs,
                      *outbox_[token.key.router].mutable_tokens()->add_tokens());
}

// The last two stages that a hand-over has on this side, in the frame of the token that they end
// with.
void Service::tell_first_step(const RequestKey& key, const Request& request, TimePoint now) {
  if (request.source == WorkerId()) return;  // nothing was handed over
  const Duration since = now - request.decoding_since;
  const Duration step = std::min(step_ran_, since);
  proto::FirstStep& told = *outbox_[key.router].mutable_tokens()->add_first_steps();
  told.set_request(key.request.value);
  told.set_generation(key.generation.value);
  told.set_queue_us(to_us(since - step));
  told.set_step_us(to_us(step));
}

void Service::flush_tokens() {
  for (auto& [router, frame] : outbox_) {
    if (frame.tokens().tokens_size() == 0) continue;
    host_.send(router, frame);
    frame.mutable_tokens()->clear_tokens();
    frame.mutable_tokens()->clear_first_steps();
  }
}

void Service::take(const Finished& finished, TimePoint now) {
  proto::Frame frame;
  serving::fill_finished(finished.key, finished.choice, finished.finish, finished.output_tokens,
                         *frame.mutable_finished());
  host_.send(finished.key.router, frame);
  const auto found = requests_.find(finished.key);
  if (found != requests_.end() && found->second.choices_left == 1) {
    decode_seconds_.Observe(to_seconds(now - found->second.decoding_since));
    e2e_seconds_.Observe(to_seconds(now - found->second.arrival));
  }
  choice_over(finished.key);
}

void Service::take(const Preempted& preempted) {
  preemptions_.Increment();
  proto::Frame frame;
  auto* m = frame.mutable_preempted();
  m->set_request(preempted.key.request.value);
  m->set_generation(preempted.key.generation.value);
  m->set_choice(preempted.choice);
  m->set_output_tokens(static_cast<uint32_t>(preempted.output.size()));
  host_.send(preempted.key.router, frame);
  choice_over(preempted.key);
}

void Service::take(const Expired& expired, TimePoint now) {
  requests_.erase(expired.key);
  if (expired.reserved) {
    (void)driver_.cancel(expired.key, now);  // sink_released() gives the blocks back
    host_.handoff_touched();
  }
  fail(expired.key, error(Errc::kDeadlineExceeded, "its output was not complete in time"), false);
}

void Service::take(const Admitted& admitted, TimePoint now) {
  grant(admitted.key, admitted.granted, now);
}

void Service::choice_over(const RequestKey& key) {
  const auto found = requests_.find(key);
  if (found != requests_.end() && --found->second.choices_left == 0) requests_.erase(found);
}

void Service::joined(const kvtransfer::Joined& joined, TimePoint now) {
  const RequestKey& key = joined.key;
  const auto found = requests_.find(key);
  if (found == requests_.end()) {
    LOG_ERROR("request {}: KV came for a request that is gone", key.request.value);
    return;
  }
  found->second.reserved = false;
  found->second.decoding_since = now;
  std::fill(found->second.last_token.begin(), found->second.last_token.end(), now);
  const std::vector<uint32_t> unwanted = std::move(found->second.unwanted);
  const std::vector<BlockId> lacking = std::move(found->second.lacking);
  proto::Frame frame;
  auto* m = frame.mutable_handed_off();
  m->set_request(key.request.value);
  m->set_generation(key.generation.value);
  m->set_bytes(joined.timings.bytes);
  m->set_segments(static_cast<uint32_t>(joined.timings.segments));
  m->set_reread(joined.timings.rereads);
  m->set_exposed_us(to_us(joined.timings.exposed));
  m->set_parked_us(to_us(joined.timings.parked));
  m->set_transport(driver_.transport_in_force(found->second.source));
  figures_.emplace_back(key.router, std::move(frame));
  if (const status in = scheduler_.join(key, joined.first_tokens, events_); !in) {
    requests_.erase(key);
    (void)scheduler_.cancel(key);
    sink_released(lacking);  // the hand-off is over: nothing writes there any more
    flush_figures();
    return fail(key, in.error(), true);
  }
  take(now);
  for (const uint32_t choice : unwanted) cancel_choice(key, choice);
  host_.work_added();
}

void Service::sink_failed(const RequestKey& key, const Error& why) {
  (void)scheduler_.cancel(key);  // kNotFound: it expired there
  if (requests_.erase(key) == 0) return;
  if (why.code != Errc::kCancelled) fail(key, why, true);
}

void Service::sink_released(std::span<const BlockId> blocks) {
  for (const BlockId block : blocks) pool_.release_quarantine(block);
  host_.work_added();
}

void Service::fail(const RequestKey& key, const Error& why, bool retryable) {
  proto::Frame frame;
  serving::fill_failed(key, why, retryable, *frame.mutable_failed());
  host_.send(key.router, frame);
}

}  // namespace baton::decode
