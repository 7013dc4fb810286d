#include "common/serving/events.h"

namespace baton::serving {
namespace {

template <class Message>
void set_key(const RequestKey& key, Message& out) {
  out.set_request(key.request.value);
  out.set_generation(key.generation.value);
}

}  // namespace

void fill_top(const ops::SampleResult& result,
              google::protobuf::RepeatedPtrField<proto::TopLogprob>& out) {
  for (uint32_t i = 0; i < result.num_top; ++i) {
    auto* top = out.Add();
    top->set_token(result.top[i].token);
    top->set_logprob(result.top[i].logprob);
  }
}

void fill_token(const RequestKey& key, uint32_t choice, uint32_t index,
                const ops::SampleResult& result, bool want_logprobs, proto::TokenEvent& out) {
  set_key(key, out);
  out.set_choice(choice);
  out.set_index(index);
  out.set_token(result.token);
  if (!want_logprobs) return;
  out.set_logprob(result.logprob);
  fill_top(result, *out.mutable_top());
}

void fill_finished(const RequestKey& key, uint32_t choice, const engine::Finish& finish,
                   uint32_t output_tokens, proto::Finished& out) {
  set_key(key, out);
  out.set_choice(choice);
  out.set_reason(finish.reason == engine::FinishReason::kStop ? proto::FINISH_STOP
                                                              : proto::FINISH_LENGTH);
  out.set_stop_token(finish.stop_token);
  out.set_output_tokens(output_tokens);
}

void fill_failed(const RequestKey& key, const Error& why, bool retryable, proto::Failed& out) {
  set_key(key, out);
  out.set_code(static_cast<uint32_t>(why.code));
  out.set_message(why.message);
  out.set_retryable(retryable);
}

}  // namespace baton::serving
