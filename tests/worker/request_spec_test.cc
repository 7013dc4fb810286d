#include "worker/request_spec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace baton::worker {
namespace {

RequestLimits limits() {
  RequestLimits l;
  l.vocab_size = 100;
  l.eos = {7};
  l.max_context = 8;
  l.max_choices = 4;
  l.max_stop_tokens = 2;
  l.max_logit_bias = 2;
  return l;
}

proto::RequestSpec good() {
  proto::RequestSpec s;
  s.set_request(5);
  s.set_generation(2);
  for (int t : {1, 2, 3}) s.add_tokens(t);
  s.set_prompt_tokens(3);
  s.set_max_tokens(4);
  s.set_choices(1);
  s.mutable_sampling()->set_top_p(1);
  s.mutable_sampling()->set_repetition_penalty(1);
  s.mutable_sampling()->add_stop_tokens(9);
  s.set_deadline_us(1000000);
  return s;
}

TEST(RequestSpec, TakesWhatIsRight) {
  const TimePoint now = Clock::now();
  const auto r = parse_spec(good(), RouterId(3), limits(), now);
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_EQ(r->key, (RequestKey{RouterId(3), RequestId(5), Generation(2)}));
  EXPECT_EQ(r->tokens, (std::vector<TokenId>{1, 2, 3}));
  EXPECT_EQ(r->sampling.stop_tokens, (std::vector<TokenId>{9, 7}));
  EXPECT_EQ(r->deadline, now + seconds(1));
}

TEST(RequestSpec, IgnoreEosLeavesOnlyTheRequestsOwnStopTokens) {
  auto s = good();
  s.mutable_sampling()->set_ignore_eos(true);
  const auto r = parse_spec(s, RouterId(3), limits(), Clock::now());
  ASSERT_TRUE(r);
  EXPECT_EQ(r->sampling.stop_tokens, (std::vector<TokenId>{9}));
}

TEST(RequestSpec, LongDeadlineIsCapped) {
  auto s = good();
  s.set_deadline_us(std::numeric_limits<uint64_t>::max());
  const TimePoint now = Clock::now();
  const auto r = parse_spec(s, RouterId(3), limits(), now);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->deadline, now + std::chrono::hours(24));
}

TEST(RequestSpec, ResumesAnyChoice) {
  auto s = good();
  s.set_choices(1);
  s.set_first_choice(limits().max_choices + 1);
  EXPECT_TRUE(parse_spec(s, RouterId(3), limits(), Clock::now()));
}

struct BadCase {
  const char* says;
  std::function<void(proto::RequestSpec&)> spoil;
};

TEST(RequestSpec, RefusesWhatIsWrongByName) {
  const float nan = std::nanf("");
  const std::vector<BadCase> cases = {
      {"id is 0", [](auto& s) { s.set_request(0); }},
      {"no tokens", [](auto& s) { s.clear_tokens(); }},
      {"9 tokens; at most 8",
       [](auto& s) {
         for (int i = 0; i < 6; ++i) s.add_tokens(1);
       }},
      {"prompt_tokens", [](auto& s) { s.set_prompt_tokens(0); }},
      {"prompt_tokens", [](auto& s) { s.set_prompt_tokens(4); }},
      {"choices", [](auto& s) { s.set_choices(0); }},
      {"choices", [](auto& s) { s.set_choices(5); }},
      {"first_choice", [](auto& s) { s.set_first_choice(128); }},
      {"resume", [](auto& s) { s.set_choices(2), s.set_prompt_tokens(2); }},
      {"outside the vocabulary", [](auto& s) { s.set_tokens(1, 100); }},
      {"outside the vocabulary", [](auto& s) { s.set_tokens(1, -1); }},
      {"stop token", [](auto& s) { s.mutable_sampling()->set_stop_tokens(0, 100); }},
      {"stop_tokens",
       [](auto& s) {
         for (int i = 0; i < 3; ++i) s.mutable_sampling()->add_stop_tokens(1);
       }},
      {"logit_bias",
       [](auto& s) {
         for (int i = 0; i < 3; ++i) s.mutable_sampling()->add_logit_bias();
       }},
      {"logit_bias", [](auto& s) { s.mutable_sampling()->add_logit_bias()->set_token(-4); }},
      {"logit_bias", [&](auto& s) { s.mutable_sampling()->add_logit_bias()->set_bias(nan); }},
      {"not finite", [&](auto& s) { s.mutable_sampling()->set_temperature(nan); }},
      {"temperature", [](auto& s) { s.mutable_sampling()->set_temperature(-1); }},
      {"top_p", [](auto& s) { s.mutable_sampling()->set_top_p(0); }},
      {"top_p", [](auto& s) { s.mutable_sampling()->set_top_p(1.5); }},
      {"min_p", [](auto& s) { s.mutable_sampling()->set_min_p(2); }},
      {"repetition_penalty", [](auto& s) { s.mutable_sampling()->set_repetition_penalty(0); }},
      {"logprobs", [](auto& s) { s.mutable_sampling()->set_logprobs(21); }},
  };
  for (const auto& c : cases) {
    auto s = good();
    c.spoil(s);
    const auto r = parse_spec(s, RouterId(3), limits(), Clock::now());
    ASSERT_FALSE(r) << c.says;
    EXPECT_EQ(r.error().code, Errc::kInvalidArgument);
    EXPECT_NE(r.error().message.find(c.says), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace baton::worker
