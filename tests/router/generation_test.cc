// What a request's end becomes in HTTP, metrics and the access log, with a cluster that says what
// the test has it say.
#include "router/service/generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <fstream>
#include <thread>

#include "router/http/access_entry.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"

namespace baton::router {
namespace {

using testing::HasSubstr;
using testing::Not;

class GenerationTest : public testing::Test {
 protected:
  GenerationTest() {
    std::ofstream(dir_ / "tokenizer.json") << fakes::toy_tokenizer_json();
    std::ofstream(dir_ / "tokenizer_config.json") << fakes::toy_tokenizer_config_json();
    model_.emplace(*ServedModel::load("toy", dir_.path()));
    job_.api = Job::Api::kCompletions;
    job_.prompts = {{'x'}};
    job_.max_tokens = 3;
    head_.request_id = "r-1";
    head_.received = Clock::now();
  }

  void begin(std::string_view slo_class = "interactive") {
    RequestSlo slo;
    slo.class_index = *classes_.find(slo_class);
    slo.target = target_;
    exchange_ = std::make_shared<Exchange>(head_, size_t{1} << 20);
    generation_ = std::make_shared<Generation>(
        Generation::Context{cluster_, metrics_, *model_, "f", Clock::now() + seconds(9), slo,
                            std::string(slo_class)},
        job_, exchange_);
  }
  void token(uint32_t part, uint32_t choice) {
    proto::TokenEvent event;
    event.set_token('a');
    event.set_choice(choice);
    generation_->on_token(part, choice, event);
  }
  void end_well(uint32_t part, RequestTrail trail = {}) {
    for (uint32_t c = 0; c < job_.n; ++c) {
      generation_->on_choice_ended(part, c, {.reason = proto::FINISH_LENGTH});
    }
    generation_->on_ended(part, {.trail = std::move(trail)});
  }
  void refuse(Refusal refusal) {
    generation_->on_ended(
        0, {.error = error(Errc::kUnavailable, refusal.message), .refusal = std::move(refusal)});
  }
  std::string metrics() { return metrics_.expose(cluster_); }
  std::string counted(const std::string& result, const std::string& slo_class = "interactive") {
    return "baton_slo_requests_total{class=\"" + slo_class + "\",result=\"" + result + "\"} 1\n";
  }

  fakes::TempDir dir_;
  boost::asio::io_context io_;
  SloClasses classes_ = *parse_slo_classes({"interactive: ttft=1s", "batch: best-effort"}, "");
  Cluster cluster_{io_, {}, {}, PlacementOptions{}, {}, {}};
  RouterMetrics metrics_{classes_};
  std::optional<ServedModel> model_;
  Job job_;
  HttpHead head_;
  SloTarget target_{seconds(1), seconds(1)};
  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<Generation> generation_;
};

boost::json::value error_of(const std::string& body) {
  return boost::json::parse(body).at("error");
}

TEST_F(GenerationTest, WhatCannotBeAttainedNowIs503AndWhenToComeBack) {
  begin();
  refuse({.message = "TTFT would be 1.8 s, 0.8 s over", .retry_after = milliseconds(2300)});
  const HttpReply& reply = exchange_->reply();
  EXPECT_EQ(reply.status, HttpStatus::kServiceUnavailable);
  EXPECT_THAT(reply.headers, HasSubstr("retry-after: 3\r\n"));
  EXPECT_THAT(reply.headers, HasSubstr("retry-after-ms: 2300\r\n"));
  EXPECT_THAT(reply.headers, Not(HasSubstr("x-should-retry")));
  const auto error = error_of(reply.body);
  EXPECT_EQ(error.at("code").as_string(), "slo_unattainable");
  EXPECT_EQ(error.at("type").as_string(), "server_error");
  EXPECT_EQ(error.at("message").as_string(), "TTFT would be 1.8 s, 0.8 s over");
  const std::string text = metrics();
  EXPECT_THAT(text, HasSubstr("baton_router_refused_total{reason=\"slo_unattainable\"} 1"));
  EXPECT_THAT(text, HasSubstr(counted("refused")));
  // It is no failure.
  EXPECT_THAT(text,
              HasSubstr("request_success_total{finished_reason=\"error\",model_name=\"toy\"} 0"));
  EXPECT_THAT(facts_text(exchange_->facts()), HasSubstr("finish=slo_unattainable"));
  EXPECT_THAT(facts_text(exchange_->facts()), HasSubstr("slo=interactive slo_result=refused"));
}

TEST_F(GenerationTest, RetryAfterIsAtLeastASecond) {
  for (const Duration after : {Duration(-5), Duration(0), Duration(1), Duration(milliseconds(1))}) {
    begin();
    refuse({.message = "m", .retry_after = after});
    EXPECT_THAT(exchange_->reply().headers, HasSubstr("retry-after: 1\r\nretry-after-ms: 1\r\n"));
  }
  begin();
  refuse({.message = "m", .retry_after = seconds(2)});
  EXPECT_THAT(exchange_->reply().headers, HasSubstr("retry-after: 2\r\nretry-after-ms: 2000\r\n"));
}

TEST_F(GenerationTest, WhatIsImpossibleIs422AndNotToBeRetried) {
  begin();
  refuse({.reason = Refusal::Reason::kImpossible, .message = "m", .retry_after = seconds(1)});
  const HttpReply& reply = exchange_->reply();
  EXPECT_EQ(reply.status, HttpStatus::kUnprocessableContent);
  EXPECT_EQ(reply.headers, "x-should-retry: false\r\n");
  EXPECT_EQ(error_of(reply.body).at("code").as_string(), "slo_impossible");
  EXPECT_THAT(metrics(), HasSubstr("baton_router_refused_total{reason=\"slo_impossible\"} 1"));
}

TEST_F(GenerationTest, ARefusalAfterTheStreamBeganIsAnEvent) {
  job_.stream.stream = true;
  begin();
  token(0, 0);
  generation_->on_batch_end();
  refuse({.message = "m", .retry_after = seconds(1)});
  EXPECT_TRUE(exchange_->complete());
  std::string sent;
  exchange_->take_pending(sent);
  EXPECT_THAT(sent, HasSubstr("\"code\":\"slo_unattainable\""));
  EXPECT_THAT(sent, HasSubstr("data: [DONE]"));
}

TEST_F(GenerationTest, WhatEndedWellMetItsTargetsOrMissedThem) {
  begin();
  token(0, 0), token(0, 0), token(0, 0);
  end_well(0);
  EXPECT_THAT(metrics(), HasSubstr(counted("met")));
  EXPECT_THAT(facts_text(exchange_->facts()), HasSubstr("slo=interactive slo_result=met tpot_ms="));

  target_.tpot = Duration(-1);
  begin();
  token(0, 0), token(0, 0);
  end_well(0);
  EXPECT_THAT(metrics(), HasSubstr(counted("missed_tpot")));

  head_.received -= seconds(2);
  begin();
  token(0, 0);
  end_well(0);
  EXPECT_THAT(metrics(), HasSubstr(counted("missed_ttft")));
  begin();
  token(0, 0), token(0, 0);
  end_well(0);
  EXPECT_THAT(metrics(), HasSubstr(counted("missed_both")));
  target_ = {};
  begin("batch");
  token(0, 0);
  end_well(0);
  EXPECT_THAT(metrics(), HasSubstr(counted("met", "batch")));
}

TEST_F(GenerationTest, OfSeveralChoicesTheWorstCounts) {
  job_.prompts = {{'x'}, {'y'}};
  job_.n = 2;
  target_ = {milliseconds(20), {}};
  begin();
  for (const uint32_t choice : {0u, 1u}) token(0, choice);
  end_well(0);
  std::this_thread::sleep_for(milliseconds(25));
  for (const uint32_t choice : {0u, 1u}) token(1, choice);
  end_well(1);
  EXPECT_THAT(metrics(), HasSubstr(counted("missed_ttft")));
}

TEST_F(GenerationTest, ErrorsAreFailedOrRefused) {
  begin();
  generation_->on_ended(0, {.error = error(Errc::kResourceExhausted, "full")});
  EXPECT_EQ(exchange_->reply().status, HttpStatus::kServiceUnavailable);
  EXPECT_THAT(metrics(), HasSubstr(counted("refused")));
  begin();
  generation_->on_ended(0, {.error = error(Errc::kDeadlineExceeded, "late")});
  EXPECT_THAT(metrics(), HasSubstr(counted("failed")));
  begin("batch");
  token(0, 0);  // it was taken: what is full now has failed it
  generation_->on_ended(0, {.error = error(Errc::kResourceExhausted, "full")});
  EXPECT_THAT(metrics(), HasSubstr(counted("failed", "batch")));
}

TEST_F(GenerationTest, PredictionsAreComparedAndShown) {
  EXPECT_THAT(metrics(), Not(HasSubstr("baton_latency_actual_ratio")));
  head_.wants_timings = true;
  head_.received -= milliseconds(500);
  begin();
  token(0, 0);
  std::this_thread::sleep_for(milliseconds(2));
  token(0, 0);
  RequestTrail trail;
  trail.predicted_ttft = milliseconds(250);
  trail.predicted_tpot = microseconds(1);
  end_well(0, trail);
  const std::string text = metrics();
  const std::string label = "baton_latency_actual_ratio{quantile=\"0.5\",what=\"";
  const auto ratio = [&](const std::string& what) {
    const size_t at = text.find(label + what + "\"} ");
    EXPECT_NE(at, text.npos) << text;
    return std::stod(text.substr(at + label.size() + what.size() + 3));
  };
  EXPECT_GE(ratio("ttft"), 2);
  EXPECT_LT(ratio("ttft"), 20);
  EXPECT_GE(ratio("tpot"), 2000);
  EXPECT_THAT(facts_text(exchange_->facts()),
              HasSubstr("predicted_ttft_ms=250.0 predicted_tpot_ms=0.00"));
  const auto timings = boost::json::parse(exchange_->reply().body).at("baton");
  EXPECT_EQ(timings.at("slo_class").as_string(), "interactive");
  EXPECT_EQ(timings.at("slo_result").as_string(), "met");
  EXPECT_EQ(timings.at("target_ttft_ms").to_number<double>(), 1000);
  EXPECT_EQ(timings.at("predicted_ttft_ms").to_number<double>(), 250);
  EXPECT_GE(timings.at("worst_gap_ms").to_number<double>(), 2);
}

}  // namespace
}  // namespace baton::router
