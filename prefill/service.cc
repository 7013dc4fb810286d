#include "prefill/service.h"

#include <algorithm>
#include <utility>

#include "common/base/log.h"
#include "common/kvcache/digest.h"
#include "common/net/protocol.h"
#include "common/serving/events.h"

namespace baton::prefill {

using kvtransfer::AbortReason;

namespace {

// All but the scores.
void fill_done(const PromptDone& done, proto::PrefillDone& out) {
  const auto in_us = [](Duration d) {
    return static_cast<uint64_t>(std::chrono::duration_cast<microseconds>(d).count());
  };
  out.set_request(done.key.request.value);
  out.set_generation(done.key.generation.value);
  out.set_queue_us(in_us(done.queued));
  out.set_compute_us(in_us(done.computed));
  out.set_cached_tokens(done.cached_tokens);
}

}  // namespace

Service::Service(const SchedulerConfig& config, const Resources& resources,
                 kvtransfer::HandoffDriver& driver, serving::ServiceHost& host, HandOver hand_over,
                 Metrics& metrics)
    : scheduler_(config, resources),
      driver_(driver),
      host_(host),
      hand_over_(std::move(hand_over)),
      queue_seconds_(metrics.histogram("vllm:request_queue_time_seconds",
                                       "From a prompt's arrival to its first step.",
                                       ttft_bounds_seconds())),
      compute_seconds_(metrics.histogram("vllm:request_prefill_time_seconds",
                                         "From a prompt's first step to its first token.",
                                         ttft_bounds_seconds())),
      ttft_seconds_(metrics.histogram("vllm:time_to_first_token_seconds",
                                      "From a prompt's arrival to its first token.",
                                      ttft_bounds_seconds())),
      e2e_seconds_(metrics.histogram("vllm:e2e_request_latency_seconds",
                                     "From a request's arrival to its last token here.",
                                     e2e_bounds_seconds())),
      prompt_tokens_(
          metrics.counter("vllm:prompt_tokens_total", "Prompt tokens computed or found.")),
      queried_tokens_(metrics.counter("vllm:prefix_cache_queries_total",
                                      "Prompt tokens looked for in the prefix cache.")),
      cached_tokens_(metrics.counter("vllm:prefix_cache_hits_total",
                                     "Prompt tokens found in the prefix cache.")) {}

void Service::submit(PrefillRequest prefill, WorkerId sink, bool granted, TimePoint now) {
  const RequestKey key = prefill.request.key;
  Request request;
  request.sampling = prefill.request.sampling;
  request.sink = sink;
  request.num_tokens = prefill.request.num_tokens();
  request.output_tokens = request.num_tokens - prefill.request.prompt_tokens;
  request.sample = prefill.sample;
  prefill.hand_off = sink != WorkerId() && prefill.sample;
  const bool hand_off = prefill.hand_off;
  const kvtransfer::SourceBegin begin{key,
                                      sink,
                                      request.num_tokens,
                                      hand_off ? kvcache::hash_tokens(prefill.request.tokens) : 0,
                                      prefill.request.deadline,
                                      granted};

  if (const status added = scheduler_.add(std::move(prefill)); !added) {
    return fail(key, added.error(), added.error().code == Errc::kResourceExhausted);
  }
  taken_[key.router] += {1, request.num_tokens, 0};
  requests_[key] = std::move(request);
  if (hand_off) {
    if (const status begun = driver_.begin(begin, now); !begun) {
      drop(key);
      return fail(key, begun.error(), true);
    }
    host_.handoff_touched();
  }
  host_.work_added();
}

void Service::retarget(const RequestKey& key, Generation next, WorkerId sink, TimePoint now) {
  const RequestKey renamed{key.router, key.request, next};
  const auto found = requests_.find(key);
  if (found == requests_.end() || found->second.sink == WorkerId()) {
    return fail(renamed, error(Errc::kNotFound, "its KV is not here any more"), true);
  }
  if (requests_.contains(renamed)) {
    LOG_WARN("request {}: generation {} is here already", key.request.value, next.value);
    return;
  }
  // First the name: the driver may speak of it while it is called.
  const WorkerId before = std::exchange(found->second.sink, sink);
  rename(key, renamed);
  if (const status moved = driver_.retarget(key, next, sink, now); !moved) {
    rename(renamed, key);
    requests_.at(key).sink = before;
    return fail(renamed, moved.error(), true);
  }
  host_.handoff_touched();
}

void Service::rename(const RequestKey& from, const RequestKey& to) {
  scheduler_.rename(from, to);
  auto node = requests_.extract(from);
  node.key() = to;
  requests_.insert(std::move(node));
}

void Service::cancel(const RequestKey& key, TimePoint now) {
  const auto found = requests_.find(key);
  if (found == requests_.end()) return;
  if (found->second.sink != WorkerId()) {
    // Ends in source_failed(), which drops it; kNotFound: it never began, or just ended.
    if (driver_.abort(key, AbortReason::kCancelled, now)) return host_.handoff_touched();
  }
  drop(key);
}

void Service::cancel_router(RouterId router, TimePoint now) {
  std::vector<RequestKey> keys;
  for (const auto& [key, request] : requests_) {
    if (key.router == router) keys.push_back(key);
  }
  for (const auto& key : keys) cancel(key, now);
  if (const auto gone = taken_.extract(router)) taken_from_gone_ += gone.mapped();
}

Taken Service::taken_from_others(RouterId router) const {
  Taken sum = taken_from_gone_;
  for (const auto& [other, taken] : taken_) {
    if (other != router) sum += taken;
  }
  return sum;
}

uint32_t Service::sequences_of_others(RouterId router) const {
  uint32_t sequences = 0;
  for (const auto& [key, request] : requests_) {
    const bool stays = request.sink == WorkerId() && request.sample;
    if (stays && key.router != router) sequences += request.sampling.num_choices;
  }
  return sequences;
}

void Service::expire(TimePoint now) {
  scheduler_.expire(now, events_);
  take(events_, now);
}

void Service::plan(engine::StepBudget& budget, engine::StepBatch& batch, TimePoint now) {
  scheduler_.plan(budget, batch, now, events_);
  take(events_, now);
}

void Service::on_layer(const engine::StepBatch& batch, uint32_t layer, TimePoint now) {
  scheduler_.on_layer(batch, layer, events_);
  take(events_, now);
}

void Service::on_done(const engine::StepBatch& batch, TimePoint now) {
  scheduler_.on_step_done(batch, now, events_);
  take(events_, now);
}

void Service::take(Events& events, TimePoint now) {
  // Handling an event may call the scheduler, but never adds events.
  for (const Event& event : events) {
    if (const auto* started = std::get_if<Started>(&event)) {
      take(*started);
    } else if (const auto* ready = std::get_if<LayersReady>(&event)) {
      take(*ready, now);
    } else if (const auto* done = std::get_if<PromptDone>(&event)) {
      take(*done, now);
    } else if (const auto* expired = std::get_if<Expired>(&event)) {
      take(*expired, now);
    }
  }
  events.clear();
}

void Service::take(const Started& started) {
  queue_seconds_.Observe(to_seconds(started.queued));
  cached_tokens_.Increment(started.cached_tokens);
  const auto found = requests_.find(started.key);
  if (found == requests_.end()) return;
  found->second.cached_tokens = started.cached_tokens;
  queried_tokens_.Increment(found->second.num_tokens);
  taken_[started.key.router] += {0, 0, started.cached_tokens};
}

void Service::take(const LayersReady& ready, TimePoint now) {
  // kNotFound: aborted meanwhile; its end is on the way.
  const status told = driver_.layers_done(
      ready.key,
      {ready.layer_begin, ready.layer_end, ready.first_block, ready.blocks, ready.digests}, now);
  if (!told && told.error().code != Errc::kNotFound) {
    LOG_ERROR("request {}: {}", ready.key.request.value, told.error().message);
  }
  host_.handoff_touched();
}

void Service::take(const Expired& expired, TimePoint now) {
  const Error why = error(Errc::kDeadlineExceeded, "its prompt was not computed in time");
  const auto found = requests_.find(expired.key);
  if (found == requests_.end()) return;
  const bool handing = found->second.sink != WorkerId();
  requests_.erase(found);
  fail(expired.key, why, false);
  // The sink holds blocks for it.
  if (handing) {
    (void)driver_.abort(expired.key, AbortReason::kDeadline, now);
    host_.handoff_touched();
  }
}

void Service::take(const PromptDone& done, TimePoint now) {
  const auto found = requests_.find(done.key);
  if (found == requests_.end()) {
    drop(done.key);
    return;
  }
  found->second.answered = found->second.sample;
  const Request request = found->second;  // what follows may end it
  compute_seconds_.Observe(to_seconds(done.computed));
  prompt_tokens_.Increment(request.num_tokens);
  const double seconds_here = to_seconds(done.queued + done.computed);
  if (request.sample && request.output_tokens == 0) ttft_seconds_.Observe(seconds_here);
  // The tokens go out first, at once: what the decode side sends of its own must not overtake them.
  // Scores, though, stand before the tokens. A frame of figures alone waits until decode can go on.
  const bool scored = !done.prompt_scores.empty();
  const bool within =
      request.sample && !scored && host_.protocol(done.key.router) >= net::kProtocolDoneWithTokens;
  if (scored) report(done);
  const bool over = !request.sample || send_first_tokens(done, request, within);
  if (!over) pass_on(done, request, now);
  if (!scored && !within) report(done);
  if (!over) return;
  e2e_seconds_.Observe(seconds_here);
  finish_here(done, request, now);
}

void Service::report(const PromptDone& done) {
  proto::Frame frame;
  auto* m = frame.mutable_prefill_done();
  fill_done(done, *m);
  for (const auto& score : done.prompt_scores) {
    auto* s = m->add_prompt_scores();
    s->set_logprob(score.logprob);
    serving::fill_top(score, *s->mutable_top());
  }
  host_.send(done.key.router, frame);
}

// True: every choice ends with its first token.
bool Service::send_first_tokens(const PromptDone& done, const Request& request, bool with_report) {
  proto::Frame frame;
  if (with_report) fill_done(done, *frame.mutable_tokens()->add_prefill_done());
  bool over = true;
  for (const FirstToken& first : done.first_tokens) {
    serving::fill_token(done.key, first.choice, request.output_tokens, first.result,
                        request.sampling.params.want_logprobs,
                        *frame.mutable_tokens()->add_tokens());
    over &=
        engine::finish_of(request.sampling, request.output_tokens, first.result.token).has_value();
  }
  host_.send(done.key.router, frame);
  return over;
}

void Service::finish_here(const PromptDone& done, const Request& request, TimePoint now) {
  for (uint32_t i = 0; i < request.sampling.num_choices; ++i) {
    engine::Finish finish;  // nothing was to be drawn: ended by length
    if (request.sample) {
      finish = *engine::finish_of(request.sampling, request.output_tokens,
                                  done.first_tokens[i].result.token);
    }
    proto::Frame frame;
    serving::fill_finished(done.key, request.sampling.first_choice + i, finish,
                           request.output_tokens + (request.sample ? 1 : 0),
                           *frame.mutable_finished());
    host_.send(done.key.router, frame);
  }
  const RequestKey key = done.key;
  const bool handing = request.sink != WorkerId();
  if (handing && driver_.abort(key, AbortReason::kNotNeeded, now)) {
    return host_.handoff_touched();  // source_failed() dropped it
  }
  drop(key);
}

void Service::pass_on(const PromptDone& done, const Request& request, TimePoint now) {
  const RequestKey key = done.key;
  if (request.sink == WorkerId()) {
    auto prompt = scheduler_.take(key);
    requests_.erase(key);
    if (!prompt) return fail(key, prompt.error(), true);
    hand_over_(std::move(*prompt), now);
    return;
  }
  std::vector<TokenId> first_tokens;
  for (const FirstToken& first : done.first_tokens) first_tokens.push_back(first.result.token);
  const status told = driver_.finished(key, first_tokens, now);
  if (!told && told.error().code != Errc::kNotFound) {
    LOG_ERROR("request {}: {}", key.request.value, told.error().message);
  }
  host_.handoff_touched();
}

void Service::source_released(const kvtransfer::SourceReleased& released) { drop(released.key); }

void Service::source_failed(const kvtransfer::SourceFailed& failed) {
  const auto found = requests_.find(failed.key);
  if (found == requests_.end()) return;
  if (failed.suspect) {
    LOG_ERROR("request {}: KV from token {} on did not match its digest and is forgotten",
              failed.key.request.value, failed.suspect->token_begin);
    // Cached blocks are read, and found wrong, while the rest of the prompt is still computed.
    (void)scheduler_.cancel_doubtful(failed.key, failed.suspect->token_begin);
  }
  // The first token was computed from what was found: if that was damaged, so may the token be, and
  // it is out. Nothing must go on behind it.
  const Request& request = found->second;
  const bool doubtful_answer =
      failed.suspect && request.answered && failed.suspect->token_begin < request.cached_tokens;
  drop(failed.key);
  if (failed.error.code != Errc::kCancelled) fail(failed.key, failed.error, !doubtful_answer);
}

void Service::source_sink_lost(const RequestKey& key, const Error& why, TimePoint now) {
  if (!requests_.contains(key)) return;
  if (host_.protocol(key.router) < net::kProtocolRetarget) {
    (void)driver_.abort(key, AbortReason::kFailed, now);  // source_failed() drops it
    return fail(key, why, true);
  }
  proto::Frame frame;
  proto::SinkLost& lost = *frame.mutable_sink_lost();
  lost.set_request(key.request.value);
  lost.set_generation(key.generation.value);
  lost.set_code(static_cast<uint32_t>(why.code));
  lost.set_message(why.message);
  host_.send(key.router, frame);
}

void Service::drop(const RequestKey& key) {
  requests_.erase(key);
  // Held, or still waiting or running; or, after hand_over, the decode side's.
  if (!scheduler_.release(key)) (void)scheduler_.cancel(key);
  host_.work_added();  // room for another
}

void Service::fail(const RequestKey& key, const Error& why, bool retryable) {
  proto::Frame frame;
  serving::fill_failed(key, why, retryable, *frame.mutable_failed());
  host_.send(key.router, frame);
}

}  // namespace baton::prefill
