#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "router/dispatch/dispatcher.h"

namespace baton::router {

inline constexpr WorkerId kPrefill{11}, kPrefill2{12}, kDecode{21}, kDecode2{22}, kMixed{31};

inline proto::WorkerHello make_hello(WorkerId id, proto::Role role) {
  proto::WorkerHello hello;
  hello.set_protocol_min(1);
  hello.set_protocol_max(1);
  hello.set_worker(id.value);
  hello.set_name("worker-" + std::to_string(id.value));
  hello.set_role(role);
  hello.set_model("m");
  hello.set_model_key("key");
  hello.set_numerics("numerics");
  hello.set_block_tokens(16);
  hello.set_total_blocks(100);
  hello.set_max_context(1000);
  hello.set_max_sequences(4);
  hello.set_vocab_size(320);
  return hello;
}

// The dispatcher on a clock of its own, with words to say what workers say.
class DispatcherTest : public testing::Test {
 protected:
  explicit DispatcherTest(PlacementOptions placement = {})
      : dispatcher_(RequestId(1), DispatchLimits{.max_queued = 3}, std::move(placement)) {}

  void join(WorkerId id, proto::Role role) {
    ASSERT_TRUE(dispatcher_.worker_joined(make_hello(id, role), "host:1", now_, actions_));
  }
  void pair(WorkerId decode, std::vector<WorkerId> prefill) {
    proto::Frame frame;
    frame.mutable_load()->set_free_blocks(100);
    frame.mutable_load()->set_total_blocks(100);
    for (const WorkerId id : prefill) frame.mutable_load()->add_paired(id.value);
    say(decode, frame);
  }
  void join_pair() {
    join(kPrefill, proto::ROLE_PREFILL);
    join(kDecode, proto::ROLE_DECODE);
    pair(kDecode, {kPrefill});
    actions_.clear();
  }
  void say(WorkerId from, proto::Frame frame) {
    dispatcher_.on_frame(from, std::move(frame), now_, actions_);
  }
  RequestId submit(uint32_t max_tokens = 4, uint32_t choices = 1) {
    RequestInput input;
    input.model = "m";
    input.prompt = {1, 2, 3};
    input.max_tokens = max_tokens;
    input.choices = choices;
    input.end_tokens = {99};
    input.deadline = now_ + seconds(600);
    const auto id = dispatcher_.submit(std::move(input), now_, actions_);
    EXPECT_TRUE(id);
    return *id;
  }

  // What is said about the newest leg.
  void grant(WorkerId from) {
    proto::Frame frame;
    auto& reply = *frame.mutable_reserve_reply();
    reply.set_request(spec_.request());
    reply.set_generation(spec_.generation());
    reply.set_granted(true);
    say(from, frame);
    take_spec();
  }
  void refuse(WorkerId from, uint64_t retry_after_us = 20'000) {
    proto::Frame frame;
    auto& reply = *frame.mutable_reserve_reply();
    reply.set_request(spec_.request());
    reply.set_generation(spec_.generation());
    reply.set_retry_after_us(retry_after_us);
    say(from, frame);
  }
  void token(WorkerId from, uint32_t index, TokenId token, uint32_t choice = 0) {
    token_of(spec_, from, index, token, choice);
  }
  void token_of(const proto::RequestSpec& spec, WorkerId from, uint32_t index, TokenId token,
                uint32_t choice = 0) {
    proto::Frame frame;
    auto& event = *frame.mutable_tokens()->add_tokens();
    event.set_request(spec.request());
    event.set_generation(spec.generation());
    event.set_choice(choice);
    event.set_index(index);
    event.set_token(token);
    say(from, frame);
  }
  void finished(WorkerId from, uint32_t output_tokens, uint32_t choice = 0) {
    proto::Frame frame;
    auto& f = *frame.mutable_finished();
    f.set_request(spec_.request());
    f.set_generation(spec_.generation());
    f.set_choice(choice);
    f.set_reason(proto::FINISH_LENGTH);
    f.set_stop_token(-1);
    f.set_output_tokens(output_tokens);
    say(from, frame);
  }
  void failed(WorkerId from, Errc code, bool retryable) {
    proto::Frame frame;
    auto& f = *frame.mutable_failed();
    f.set_request(spec_.request());
    f.set_generation(spec_.generation());
    f.set_code(static_cast<uint32_t>(code));
    f.set_message("it broke");
    f.set_retryable(retryable);
    say(from, frame);
  }
  void handed_off(WorkerId from) {
    proto::Frame frame;
    auto& h = *frame.mutable_handed_off();
    h.set_request(spec_.request());
    h.set_generation(spec_.generation());
    h.set_bytes(640);
    h.set_transport("posix");
    say(from, frame);
  }
  void preempted(WorkerId from, uint32_t output_tokens, uint32_t choice = 0) {
    proto::Frame frame;
    auto& p = *frame.mutable_preempted();
    p.set_request(spec_.request());
    p.set_generation(spec_.generation());
    p.set_choice(choice);
    p.set_output_tokens(output_tokens);
    say(from, frame);
  }

  // Remembers the newest spec that went out, and drops the frames.
  const proto::RequestSpec& take_spec() {
    for (const Send& send : actions_.sends) {
      if (send.frame.has_reserve()) spec_ = send.frame.reserve().spec();
      if (send.frame.has_submit()) spec_ = send.frame.submit().spec();
    }
    actions_.sends.clear();
    return spec_;
  }
  // "reserve@21", "submit@11", "cancel@21", in order.
  std::vector<std::string> sent() const {
    std::vector<std::string> out;
    for (const Send& send : actions_.sends) {
      const auto* field = proto::Frame::descriptor()->FindFieldByNumber(send.frame.body_case());
      out.push_back(field->name() + "@" + std::to_string(send.to.value));
    }
    return out;
  }
  std::vector<TokenId> delivered(uint32_t choice = 0) const {
    std::vector<TokenId> tokens;
    for (const Output& output : actions_.outputs) {
      const auto* token = std::get_if<TokenOut>(&output);
      if (token && token->choice == choice) tokens.push_back(token->event.token());
    }
    return tokens;
  }
  const RequestEnded* ended() const {
    for (const Output& output : actions_.outputs) {
      if (const auto* end = std::get_if<RequestEnded>(&output)) return end;
    }
    return nullptr;
  }
  void pass(Duration time) {
    now_ += time;
    dispatcher_.tick(now_, actions_);
  }

  TimePoint now_{seconds(1000)};
  Dispatcher dispatcher_;
  Actions actions_;
  proto::RequestSpec spec_;
};

}  // namespace baton::router
