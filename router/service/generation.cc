#include "router/service/generation.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <span>
#include <utility>

namespace baton::router {
namespace {

uint64_t draw_seed() {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return generator();
}

double to_ms(Duration d) { return to_seconds(d) * 1e3; }
std::optional<double> to_ms(const std::optional<Duration>& d) {
  if (!d) return std::nullopt;
  return to_ms(*d);
}

AnswerHead make_answer_head(const Job& job, const Generation::Context& context,
                            const std::string& request_id) {
  const bool chat = job.api == Job::Api::kChat;
  AnswerHead head;
  head.kind = chat ? AnswerHead::Kind::kChat : AnswerHead::Kind::kCompletion;
  head.id = (chat ? "chatcmpl-" : "cmpl-") + request_id;
  head.created =
      std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  head.model = context.model.name();
  head.fingerprint = context.fingerprint;
  head.logprobs = job.logprobs.has_value();
  head.include_usage = job.stream.include_usage;
  return head;
}

FinishReason finish_reason(const ChoiceEnd& end) {
  return end.reason == proto::FINISH_LENGTH ? FinishReason::kLength : FinishReason::kStop;
}

}  // namespace

api_status Generation::start(Context context, Job job, std::shared_ptr<Exchange> exchange) {
  if (exchange->gone() != Exchange::Gone::kNo || exchange->complete()) {
    const bool gone = exchange->gone() != Exchange::Gone::kNo;
    const SloResult result = gone ? SloResult::kCancelled : SloResult::kFailed;
    context.metrics.ended(context.slo.class_index, result);
    exchange->facts().slo_class = context.slo_class;
    exchange->facts().slo_result = name(result);
    return {};
  }
  const auto generation =
      std::make_shared<Generation>(std::move(context), std::move(job), std::move(exchange));
  BATON_CHECK_OK(generation->submit());
  generation->exchange_->on_gone([weak = std::weak_ptr(generation)] {
    if (const auto alive = weak.lock()) alive->give_up("disconnected");
  });
  generation->exchange_->on_abort([weak = std::weak_ptr(generation)](const ApiError& why) {
    if (const auto alive = weak.lock()) alive->fail(why);
  });
  return {};
}

Generation::Generation(Context context, Job job, std::shared_ptr<Exchange> exchange)
    : context_(std::move(context)),
      series_(context_.metrics.of(context_.model.name())),
      job_(std::move(job)),
      exchange_(std::move(exchange)),
      format_(make_answer_head(job_, context_, exchange_->head().request_id)),
      parts_(job_.prompts.size()),
      times_(job_.num_choices()),
      role_told_(job_.num_choices()) {
  const ChoiceText::Options options{.skip_special = job_.sampling.skip_special_tokens,
                                    .logprobs = job_.logprobs.has_value(),
                                    .stop = job_.sampling.stop,
                                    .min_tokens = job_.sampling.min_tokens};
  texts_.reserve(job_.num_choices());
  for (uint32_t i = 0; i < job_.num_choices(); ++i) {
    texts_.emplace_back(i, context_.model.tokenizer(), options);
  }
}

api_status Generation::submit() {
  series_.parse.Observe(to_seconds(Clock::now() - exchange_->head().received));
  const auto prompt_tokens = static_cast<int64_t>(job_.prompt_tokens());
  if (context_.admission) context_.admission->charge(prompt_tokens, Clock::now());
  for (uint32_t i = 0; i < parts_.size(); ++i) {
    RequestInput input = make_input(job_, i, context_.model, draw_seed());
    input.deadline = context_.deadline;
    input.slo = context_.slo;
    input.trace = exchange_->head().request_id;
    if (context_.admission) input.tenant = context_.admission->tenant().name;
    const auto id = context_.cluster.submit(std::move(input), shared_from_this(), i);
    if (!id) {
      over_ = true;
      cancel_parts();
      if (context_.admission) context_.admission->charge(-prompt_tokens, Clock::now());
      return from_error(id.error());
    }
    parts_[i].request = *id;
    if (over_) return {};  // refused already, and answered
  }
  series_.prompt_tokens.Increment(static_cast<double>(job_.prompt_tokens()));
  return {};
}

// --- what the cluster says -----------------------------------------------------------------------

void Generation::on_token(uint32_t part, uint32_t, const proto::TokenEvent& event) {
  if (over_) return;
  Part& p = parts_[part];
  if (!p.opened && job_.echo && job_.logprobs) {
    p.held.push_back(event);
    return;
  }
  if (!p.opened) open(p, part, {});
  add_token(part, event, Clock::now());
}

void Generation::on_prompt_scores(uint32_t part, std::vector<proto::PromptScore> scores) {
  if (over_) return;
  Part& p = parts_[part];
  open(p, part, scores);
  const TimePoint now = Clock::now();
  for (const proto::TokenEvent& event : std::exchange(p.held, {})) add_token(part, event, now);
  for (const auto& [choice, end] : std::exchange(p.held_ends, {})) end_choice(part, choice, end);
}

void Generation::on_choice_ended(uint32_t part, uint32_t choice, const ChoiceEnd& end) {
  if (over_) return;
  Part& p = parts_[part];
  if (!p.opened && job_.echo && job_.logprobs) {
    p.held_ends.emplace_back(choice, end);
    return;
  }
  if (!p.opened) open(p, part, {});
  end_choice(part, choice, end);
}

void Generation::on_ended(uint32_t part, const RequestEnded& ended) {
  Part& p = parts_[part];
  p.ended = true;
  ++parts_ended_;
  observe(part, ended.trail);
  if (over_) return;
  p.cached_tokens = ended.trail.cached_tokens.value_or(0);
  keep_trail(ended.trail);
  if (ended.refusal) return refuse(*ended.refusal);
  if (ended.error) return fail(from_error(*ended.error));
  const std::span<const TokenTimes> all = times_;
  context_.metrics.compare(ended.trail, worst_of(all.subspan(size_t{part} * job_.n, job_.n),
                                                 exchange_->head().received));
  if (parts_ended_ == parts_.size()) complete();
}

void Generation::on_batch_end() {
  if (over_ || !exchange_->streaming()) return;
  if (!exchange_->flush()) give_up("too_slow");
}

// --- the answer ----------------------------------------------------------------------------------

void Generation::open(Part& part, uint32_t index, const std::vector<proto::PromptScore>& scores) {
  part.opened = true;
  if (!job_.echo) return;
  const size_t before = exchange_->buffer().size();
  for (uint32_t c = 0; c < job_.n; ++c) {
    ChoiceText& text = texts_[index * job_.n + c];
    text.echo(job_.prompts[index], scores);
    write(text);
  }
  // Its length is the prompt's: no sign of a slow reader.
  exchange_->allow(exchange_->buffer().size() - before);
}

// A token that ends the choice has no text of its own.
bool Generation::is_silent(TokenId token) const {
  const auto& ids = job_.sampling.stop_token_ids;
  if (std::ranges::find(ids, token) != ids.end()) return true;
  const auto eos = context_.model.tokenizer().eos();
  return !job_.sampling.ignore_eos && std::ranges::find(eos, token) != eos.end();
}

void Generation::add_token(uint32_t part, const proto::TokenEvent& event, TimePoint now) {
  const size_t index = size_t{part} * job_.n + event.choice();
  ChoiceText& text = texts_[index];
  if (text.finished()) return;
  time_token(index, now);
  if (job_.echo_only()) return;
  ++completion_tokens_;
  series_.tokens.add_token();
  if (text.add(event, is_silent(event.token()))) {
    text.finish(FinishReason::kStop);
    series_.stopped.Increment();
    context_.cluster.stop_choice(parts_[part].request, event.choice());
  }
  write(text);
  if (index == 0 && times_[0].tokens() <= Exchange::kNumMarks) {
    exchange_->mark(times_[0].tokens() == 1 ? Exchange::kFirstToken : Exchange::kSecondToken);
  }
}

void Generation::time_token(size_t choice, TimePoint now) {
  TokenTimes& times = times_[choice];
  if (times.last()) {
    series_.tokens.add_gap(to_seconds(now - *times.last()));
  } else if (choice == 0) {
    series_.ttft.Observe(to_seconds(now - exchange_->head().received));
  }
  times.add(now);
}

void Generation::end_choice(uint32_t part, uint32_t choice, const ChoiceEnd& end) {
  ChoiceText& text = texts_[part * job_.n + choice];
  if (text.finished()) return;
  const FinishReason reason = job_.echo_only() ? FinishReason::kLength : finish_reason(end);
  (reason == FinishReason::kStop ? series_.stopped : series_.reached_length).Increment();
  text.finish(reason);
  write(text);
}

// In a stream, what is new; a whole answer waits for complete().
void Generation::write(ChoiceText& text) {
  if (!job_.stream.stream || !text.has_news()) return;
  if (!exchange_->streaming()) exchange_->begin_stream();
  std::string& out = exchange_->buffer();
  const uint32_t index = text.piece().index;
  if (job_.api == Job::Api::kChat && !role_told_[index]) {
    role_told_[index] = true;
    format_.append_role_event(out, index);
  }
  std::optional<Usage> so_far;
  if (job_.stream.continuous_usage) so_far = usage();
  format_.append_event(out, text.piece(), so_far);
  text.take();
}

void Generation::complete() {
  over_ = true;
  series_.e2e.Observe(to_seconds(Clock::now() - exchange_->head().received));
  account("ok", attained_now());
  if (!job_.stream.stream) {
    std::vector<ChoicePiece> choices;
    for (const ChoiceText& text : texts_) choices.push_back(text.piece());
    exchange_->reply({.body = format_.body(choices, usage(), timings())});
    return;
  }
  std::optional<Usage> total;
  if (job_.stream.include_usage) total = usage();
  const std::optional<Timings> times = timings();
  if (total || times) format_.append_closing_event(exchange_->buffer(), total, times);
  AnswerFormat::append_done(exchange_->buffer());
  if (!exchange_->flush()) context_.metrics.cut_off("too_slow");
  exchange_->finish();
}

// Nobody fails whom the cluster refuses: that is counted apart.
void Generation::refuse(const Refusal& refusal) {
  const ApiError error = from_refusal(refusal);
  context_.metrics.refused(error.code);
  end_with(error, SloResult::kRefused);
}

void Generation::fail(const ApiError& error) {
  series_.failed.Increment();
  const bool begun = measured().ttft.has_value();
  end_with(error, !begun && is_overload(error) ? SloResult::kRefused : SloResult::kFailed);
}

void Generation::end_with(const ApiError& error, SloResult result) {
  over_ = true;
  cancel_parts();
  account(error.code.empty() ? "error" : error.code, result);
  if (!exchange_->streaming()) {
    exchange_->reply(error_reply(error));
    return;
  }
  AnswerFormat::append_error_event(exchange_->buffer(), error);
  AnswerFormat::append_done(exchange_->buffer());
  exchange_->flush();
  exchange_->finish();
}

// The client is gone, or as good as gone.
void Generation::give_up(std::string_view why) {
  if (over_) return;
  over_ = true;
  cancel_parts();
  series_.aborted.Increment();
  context_.metrics.cut_off(why);
  account(why, SloResult::kCancelled);
}

void Generation::cancel_parts() {
  for (Part& part : parts_) {
    if (part.ended || part.request == RequestId{}) continue;
    part.ended = true;
    if (const auto trail = context_.cluster.cancel(part.request)) {
      observe(static_cast<uint32_t>(&part - parts_.data()), *trail);
      part.cached_tokens = trail->cached_tokens.value_or(0);
      keep_trail(*trail);
    }
  }
}

// The first prompt's first choice is followed to the socket, and its stages are the request's.
void Generation::observe(uint32_t part, const RequestTrail& trail) {
  WrittenTokens written;
  if (part == 0) {
    written = {exchange_->written(Exchange::kFirstToken),
               exchange_->written(Exchange::kSecondToken)};
  }
  const RequestStages stages = stages_of(trail, exchange_->head().received, written);
  context_.metrics.observe(series_, trail, stages);
  if (part > 0) return;
  exchange_->facts().stages = stages;
  if (trail.first_token) exchange_->facts().last_token = trail.last_token;
}

void Generation::keep_trail(const RequestTrail& trail) {
  const RequestTrail before = std::exchange(trail_, trail);
  trail_.kv_bytes += before.kv_bytes;
  trail_.retries += before.retries;
  trail_.retargets += before.retargets;
  trail_.resumes += before.resumes;
  trail_.preemptions += before.preemptions;
}

// --- figures -------------------------------------------------------------------------------------

Measured Generation::measured() const { return worst_of(times_, exchange_->head().received); }

Usage Generation::usage() const {
  Usage usage{static_cast<uint32_t>(job_.prompt_tokens()), completion_tokens_, 0};
  for (const Part& part : parts_) usage.cached_tokens += part.cached_tokens;
  return usage;
}

std::optional<Timings> Generation::timings() const {
  if (!exchange_->head().wants_timings) return std::nullopt;
  Timings out;
  const TokenTimes& times = times_[0];
  if (times.first()) out.ttft_ms = to_ms(*times.first() - exchange_->head().received);
  out.tpot_ms = to_ms(times.tpot().value_or(Duration::zero()));
  out.worst_gap_ms = to_ms(measured().worst_gap);
  out.slo_class = context_.slo_class;
  out.slo_result = name(attained_now());
  out.target_ttft_ms = to_ms(context_.slo.target.ttft);
  out.target_tpot_ms = to_ms(context_.slo.target.tpot);
  out.predicted_ttft_ms = to_ms(trail_.predicted_ttft);
  out.predicted_tpot_ms = to_ms(trail_.predicted_tpot);
  out.kv_bytes = trail_.kv_bytes;
  out.kv_transport = trail_.kv_transport;
  out.prefill_worker = trail_.prefill_worker;
  out.decode_worker = trail_.decode_worker;
  out.cached_tokens = trail_.cached_tokens.value_or(0);
  return out;
}

void Generation::account(std::string_view finish, SloResult result) {
  context_.metrics.ended(context_.slo.class_index, result);
  note(finish, result);
  record(finish);
  show(finish, result);
  settle_quota(result);
}

// Its prompts were charged when they were submitted. What was refused has cost nobody anything.
void Generation::settle_quota(SloResult result) {
  if (!context_.admission) return;
  const auto prompt = static_cast<int64_t>(job_.prompt_tokens());
  const bool refused = result == SloResult::kRefused;
  context_.admission->charge(refused ? -prompt : int64_t{completion_tokens_}, Clock::now());
  if (!refused) context_.metrics.tenants().used(context_.admission->tenant().name, usage());
}

void Generation::record(std::string_view finish) {
  if (context_.record == nullptr) return;
  context_.record->add({.received = exchange_->head().received,
                        .prompt_tokens = static_cast<uint32_t>(job_.prompt_tokens()),
                        .output_tokens = completion_tokens_,
                        .trail = trail_,
                        .measured = measured(),
                        .outcome = finish});
}

void Generation::show(std::string_view finish, SloResult result) {
  if (context_.recent == nullptr) return;
  const HttpHead& head = exchange_->head();
  const Usage used = usage();
  context_.recent->add({.id = head.request_id,
                        .tenant = context_.admission ? context_.admission->tenant().name : "",
                        .model = context_.model.name(),
                        .class_index = context_.slo.class_index,
                        .result = result,
                        .finish = std::string(finish),
                        .received = head.received,
                        .ended = Clock::now(),
                        .prompt_tokens = used.prompt_tokens,
                        .cached_tokens = used.cached_tokens,
                        .output_tokens = used.completion_tokens,
                        .measured = measured(),
                        .prefill = trail_.prefill_worker,
                        .decode = trail_.decode_worker,
                        .kv_bytes = trail_.kv_bytes,
                        .retries = trail_.retries,
                        .stages = exchange_->facts().stages});
}

void Generation::note(std::string_view finish, SloResult result) {
  RequestFacts& facts = exchange_->facts();
  facts.slo_class = context_.slo_class;
  facts.slo_result = name(result);
  facts.model = context_.model.name();
  facts.finish = finish;
  const Usage used = usage();
  facts.prompt_tokens = used.prompt_tokens;
  facts.output_tokens = used.completion_tokens;
  facts.cached_tokens = used.cached_tokens;
  const Measured worst = measured();
  facts.ttft = worst.ttft;
  facts.tpot = worst.tpot;
  if (worst.tpot) facts.worst_gap = worst.worst_gap;
  facts.predicted_ttft = trail_.predicted_ttft;
  facts.predicted_tpot = trail_.predicted_tpot;
  facts.prefill = trail_.prefill_worker;
  facts.decode = trail_.decode_worker;
  facts.kv_bytes = trail_.kv_bytes;
  facts.retries = trail_.retries;
  facts.retargets = trail_.retargets;
  facts.resumes = trail_.resumes;
  facts.preemptions = trail_.preemptions;
  facts.parked = microseconds(trail_.parked_us);
  facts.stage = trail_.stage;
  facts.ignored = job_.unknown;
}

}  // namespace baton::router
