#include "router/http/access_entry.h"

#include <gtest/gtest.h>

#include <boost/json/object.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

namespace baton::router {
namespace {

namespace json = boost::json;
using std::chrono::system_clock;

class AccessEntryTest : public ::testing::Test {
 protected:
  AccessEntryTest() {
    head_.method = "POST";
    head_.path = "/v1/completions";
    head_.request_id = "id-1";
    head_.peer = "127.0.0.1:5";
  }
  AccessEntry entry(HttpStatus status = HttpStatus::kOk) const {
    return {.head = head_,
            .status = status,
            .reason = reason_,
            .outcome = outcome_,
            .bytes = 120,
            .took = milliseconds(12),
            .facts = facts_};
  }
  json::object as_json(HttpStatus status = HttpStatus::kOk) const {
    return json::parse(access_json(entry(status), now_)).as_object();
  }
  void fill() {
    facts_.slo_class = "interactive";
    facts_.slo_result = "met";
    facts_.model = "m";
    facts_.finish = "ok";
    facts_.prompt_tokens = 30;
    facts_.cached_tokens = 16;
    facts_.output_tokens = 4;
    facts_.ttft = milliseconds(5);
    facts_.tpot = microseconds(2500);
    facts_.worst_gap = milliseconds(3);
    facts_.prefill = "prefill-0";
    facts_.decode = "decode-1";
    facts_.retries = 1;
    facts_.kv_bytes = 4096;
  }

  HttpHead head_;
  RequestFacts facts_;
  std::string reason_, outcome_ = "ok";
  const system_clock::time_point now_{std::chrono::milliseconds(1'764'288'000'042)};
};

TEST_F(AccessEntryTest, ARequestOfAModelHasAllThatItUsedAndWhere) {
  fill();
  EXPECT_EQ(access_json(entry(), now_),
            R"({"time":"2025-11-28T00:00:00.042Z","id":"id-1","peer":"127.0.0.1:5",)"
            R"("method":"POST","path":"/v1/completions","status":200,"reason":"ok",)"
            R"("outcome":"ok","bytes":120,"ms":12.000,"class":"interactive",)"
            R"("slo_result":"met","model":"m","prompt_tokens":30,"cached_tokens":16,)"
            R"("output_tokens":4,"ttft_ms":5.000,"tpot_ms":2.500,"gap_ms":3.000,)"
            R"("prefill":"prefill-0","decode":"decode-1","kv_bytes":4096,"retries":1,)"
            R"("retargets":0,"resumes":0,"preemptions":0})");
}

TEST_F(AccessEntryTest, StagesAreTwoObjectsOfWhatIsKnown) {
  fill();
  facts_.stages.parse = microseconds(250);
  facts_.stages.relay = milliseconds(1);
  json::object line = as_json();
  EXPECT_EQ(json::serialize(line.at("ttft_stages_ms")), R"({"parse":2.5E-1,"relay":1E0})");
  EXPECT_FALSE(line.contains("handover_stages_ms"));
  facts_.stages.parked = facts_.stages.exposed_transfer = facts_.stages.decode_queue =
      facts_.stages.first_step = facts_.stages.handover_relay = facts_.stages.handover_rest =
          milliseconds(2);
  line = as_json();
  EXPECT_EQ(line.at("handover_stages_ms").as_object().size(), 6u);
  EXPECT_EQ(line.at("handover_stages_ms").at("handover_rest").to_number<double>(), 2);
}

TEST_F(AccessEntryTest, WhatIsNotKnownIsLeftOut) {
  reason_ = "invalid_api_key";
  const json::object line = as_json(HttpStatus::kUnauthorized);
  EXPECT_EQ(line.at("status").as_int64(), 401);
  EXPECT_EQ(line.at("reason").as_string(), "invalid_api_key");
  for (const char* key : {"class", "model", "prompt_tokens", "ttft_ms", "prefill", "retries"}) {
    EXPECT_FALSE(line.contains(key)) << key;
  }
}

TEST_F(AccessEntryTest, TheReasonIsTheModelsElseThatOfHttpElseTheOutcome) {
  outcome_ = "disconnected";
  EXPECT_EQ(as_json().at("reason").as_string(), "disconnected");
  reason_ = "overloaded";
  EXPECT_EQ(as_json().at("reason").as_string(), "overloaded");
  fill();
  facts_.finish = "too_slow";
  EXPECT_EQ(as_json().at("reason").as_string(), "too_slow");
  EXPECT_EQ(as_json().at("outcome").as_string(), "disconnected");
}

// Names come from files and, safe as they are, from clients: a line stays a line.
TEST_F(AccessEntryTest, NothingBreaksTheLine) {
  fill();
  facts_.model = "a\"b\nc\\";
  head_.path = "/\"\xff";
  const std::string line = access_json(entry(), now_);
  EXPECT_EQ(line.find('\n'), line.npos);
  EXPECT_EQ(json::parse(line).at("model").as_string(), facts_.model);
}

TEST_F(AccessEntryTest, TheTextSaysTheSame) {
  EXPECT_EQ(access_text(entry()),
            "access id=id-1 peer=127.0.0.1:5 method=POST path=/v1/completions status=200 "
            "outcome=ok bytes=120 ms=12.0");
  fill();
  facts_.ignored = {"x", "y"};
  EXPECT_EQ(facts_text(facts_),
            "model=m finish=ok prompt_tokens=30 output_tokens=4 ttft_ms=5.0 prefill=prefill-0 "
            "decode=decode-1 retries=1 retargets=0 resumes=0 slo=interactive slo_result=met "
            "tpot_ms=2.50 gap_ms=3.0 ignored=x,y");
  facts_ = {};
  facts_.refused = "overloaded";
  facts_.slo_class = "batch";
  facts_.slo_result = "refused";
  EXPECT_EQ(facts_text(facts_), "refused=overloaded slo=batch slo_result=refused");
}

}  // namespace
}  // namespace baton::router
