// What is in flight, as whoever looks sees it; and what a record has of a request that was retried.
#include "tests/router/dispatch/dispatcher_fixture.h"

namespace baton::router {
namespace {

using testing::ElementsAre;

class RequestViewTest : public DispatcherTest {
 protected:
  RequestView only() const {
    const auto all = dispatcher_.oldest(10);
    EXPECT_EQ(all.size(), 1u);
    return all.empty() ? RequestView{} : all.front();
  }
  std::string stage() const { return std::string(only().legs.at(0).stage); }
  void prefill_done(WorkerId from, uint32_t cached) {
    proto::Frame frame;
    auto& done = *frame.mutable_prefill_done();
    done.set_request(spec_.request());
    done.set_generation(spec_.generation());
    done.set_cached_tokens(cached);
    say(from, frame);
  }
};

TEST_F(RequestViewTest, ARequestIsSeenWhereItIsAndHowFarItHasCome) {
  join_pair();
  submit(4);
  take_spec();
  EXPECT_EQ(stage(), "reserve");
  grant(kDecode);
  EXPECT_EQ(stage(), "prefill");
  RequestView view = only();
  EXPECT_EQ(view.model, "m");
  EXPECT_EQ(view.received, now_);
  EXPECT_EQ(view.prompt_tokens, 3u);
  EXPECT_EQ(view.max_tokens, 4u);
  EXPECT_FALSE(view.cached_tokens);
  EXPECT_EQ(view.legs[0].id.value, spec_.request());
  EXPECT_EQ(view.legs[0].prefill, "worker-11");
  EXPECT_EQ(view.legs[0].decode, "worker-21");
  prefill_done(kPrefill, 2);
  token(kPrefill, 0, 50);
  handed_off(kDecode);
  token(kDecode, 1, 51);
  EXPECT_EQ(stage(), "decode");
  EXPECT_EQ(only().output_tokens, 2u);
  EXPECT_EQ(only().cached_tokens, 2u);
}

// By a frame of its own it could come when decode has ended the request.
TEST_F(RequestViewTest, WhatThePromptTookIsKnownWithItsFirstToken) {
  join_pair();
  submit(4);
  take_spec();
  grant(kDecode);
  proto::Frame frame;
  auto& event = *frame.mutable_tokens()->add_tokens();
  event.set_request(spec_.request());
  event.set_generation(spec_.generation());
  event.set_token(50);
  auto& done = *frame.mutable_tokens()->add_prefill_done();
  done.set_request(spec_.request());
  done.set_generation(spec_.generation());
  done.set_cached_tokens(2);
  say(kPrefill, frame);
  EXPECT_EQ(only().cached_tokens, 2u);
  EXPECT_EQ(only().output_tokens, 1u);
}

TEST_F(RequestViewTest, WhatWaitsIsOnNoWorker) {
  join_pair();
  submit();
  take_spec();
  refuse(kDecode);
  EXPECT_EQ(stage(), "queue");
  EXPECT_EQ(only().legs[0].prefill, "");
  EXPECT_EQ(only().legs[0].decode, "");
}

TEST_F(RequestViewTest, TheOldestComeFirstAndAsManyAsAreWanted) {
  join(kMixed, proto::ROLE_MIXED);
  for (const uint32_t max_tokens : {5u, 6u, 7u}) submit(max_tokens);
  std::vector<uint32_t> seen;
  for (const RequestView& view : dispatcher_.oldest(2)) seen.push_back(view.max_tokens);
  EXPECT_THAT(seen, ElementsAre(5, 6));
  EXPECT_EQ(dispatcher_.oldest(10).size(), 3u);
  EXPECT_TRUE(dispatcher_.oldest(0).empty());
}

TEST_F(RequestViewTest, CachedTokensAreThoseOfTheFirstTimeThatItWasComputed) {
  join(kMixed, proto::ROLE_MIXED);
  submit(4);
  take_spec();
  prefill_done(kMixed, 1);
  failed(kMixed, Errc::kUnavailable, /*retryable=*/true);
  take_spec();
  prefill_done(kMixed, 3);  // by now all of it is in the cache
  EXPECT_EQ(only().cached_tokens, 1u);
  EXPECT_EQ(only().retries, 1u);
}

}  // namespace
}  // namespace baton::router
