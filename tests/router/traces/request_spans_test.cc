#include "router/traces/request_spans.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace baton::router {
namespace {

using std::chrono::system_clock;

const TimePoint kReceived{seconds(1000)};
const system_clock::time_point kWall{seconds(1'764'288'000)};  // `received` by the wall clock

// 20 ms to the first token, 30 to the second, 50 more to the last; over after 101.
TracedRequest handed_over() {
  TracedRequest r;
  r.context =
      *parse_trace_context("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "v=1");
  r.method = "POST";
  r.path = "/v1/completions";
  r.request_id = "r-1";
  r.reason = "ok";
  r.status = 200;
  r.received = kReceived;
  r.ended = kReceived + milliseconds(101);
  r.ended_at = kWall + milliseconds(101);
  RequestFacts& f = r.facts;
  f.model = "m";
  f.prompt_tokens = 7;
  f.output_tokens = 3;
  f.prefill = "prefill-0";
  f.decode = "decode-0";
  f.kv_bytes = 640;
  f.last_token = kReceived + milliseconds(100);
  RequestStages& s = f.stages;
  s.parse = milliseconds(1);
  s.admission = milliseconds(2);
  s.reserve = milliseconds(3);
  s.prefill_queue = milliseconds(4);
  s.prefill = milliseconds(7);
  s.relay = milliseconds(3);
  s.parked = milliseconds(10);
  s.exposed_transfer = milliseconds(5);
  s.decode_queue = milliseconds(6);
  s.first_step = milliseconds(7);
  s.handover_relay = milliseconds(1);
  s.handover_rest = milliseconds(1);
  s.handover = milliseconds(30);
  return r;
}

class RequestSpansTest : public testing::Test {
 protected:
  void make(const TracedRequest& request) {
    uint64_t id = 0x100;
    append_spans(
        request, [&] { return ++id; }, out_);
    for (const otlp::Span& span : out_.spans()) by_name_[span.name()] = &span;
  }
  const otlp::Span& span(const std::string& name) { return *by_name_.at(name); }
  // Milliseconds from receipt on.
  std::pair<double, double> when(const std::string& name) {
    constexpr uint64_t kBegun = 1'764'288'000'000'000'000;
    const auto ms = [](uint64_t unix_nano) {
      return static_cast<double>(static_cast<int64_t>(unix_nano - kBegun)) * 1e-6;
    };
    return {ms(span(name).start_time_unix_nano()), ms(span(name).end_time_unix_nano())};
  }
  std::map<std::string, std::string> attributes(const std::string& name) {
    std::map<std::string, std::string> found;
    for (const auto& a : span(name).attributes()) {
      found[a.key()] = a.value().has_int_value() ? std::to_string(a.value().int_value())
                                                 : a.value().string_value();
    }
    return found;
  }

  otlp::ScopeSpans out_;
  std::map<std::string, const otlp::Span*> by_name_;
};

constexpr const char* kWhole = "POST /v1/completions";

TEST_F(RequestSpansTest, StagesStandWhereTheyWere) {
  make(handed_over());
  using Span = std::pair<double, double>;
  EXPECT_EQ(when(kWhole), Span(0, 101));
  EXPECT_EQ(when("parse"), Span(0, 1));
  EXPECT_EQ(when("admission"), Span(1, 3));
  EXPECT_EQ(when("reserve"), Span(3, 6));
  EXPECT_EQ(when("prefill"), Span(6, 20));
  EXPECT_EQ(when("prefill_queue"), Span(6, 10));
  EXPECT_EQ(when("prefill_compute"), Span(10, 17));
  EXPECT_EQ(when("handover"), Span(20, 50));
  EXPECT_EQ(when("parked"), Span(21, 31));
  EXPECT_EQ(when("exposed_transfer"), Span(31, 36));
  EXPECT_EQ(when("decode_queue"), Span(36, 42));
  EXPECT_EQ(when("first_step"), Span(42, 49));
  EXPECT_EQ(when("relay"), Span(49, 50));
  EXPECT_EQ(when("decode"), Span(50, 100));
}

TEST_F(RequestSpansTest, TheyAreATreeBelowTheCallersSpan) {
  make(handed_over());
  std::set<std::string> ids;
  for (const otlp::Span& s : out_.spans()) {
    EXPECT_EQ(to_hex({reinterpret_cast<const uint8_t*>(s.trace_id().data()), 16}),
              "4bf92f3577b34da6a3ce929d0e0e4736");
    EXPECT_EQ(s.span_id().size(), 8u);
    EXPECT_EQ(s.trace_state(), "v=1");
    ids.insert(s.span_id());
  }
  EXPECT_EQ(ids.size(), static_cast<size_t>(out_.spans_size()));
  EXPECT_EQ(span(kWhole).parent_span_id(), std::string("\x00\xf0\x67\xaa\x0b\xa9\x02\xb7", 8));
  EXPECT_EQ(span(kWhole).flags(), 0x301u);
  EXPECT_EQ(span(kWhole).kind(), 2u);
  EXPECT_EQ(span("prefill").parent_span_id(), span(kWhole).span_id());
  EXPECT_EQ(span("prefill").flags(), 0x101u);
  EXPECT_EQ(span("prefill_compute").parent_span_id(), span("prefill").span_id());
  EXPECT_EQ(span("first_step").parent_span_id(), span("handover").span_id());
  EXPECT_EQ(span("decode").parent_span_id(), span(kWhole).span_id());
}

TEST_F(RequestSpansTest, AttributesSayWhoAndHowMuchAndNothingThatWasSaid) {
  TracedRequest r = handed_over();
  r.facts.tenant = "acme";
  make(r);
  const auto whole = attributes(kWhole);
  EXPECT_EQ(whole.at("baton.request_id"), "r-1");
  EXPECT_EQ(whole.at("http.response.status_code"), "200");
  EXPECT_EQ(whole.at("gen_ai.request.model"), "m");
  EXPECT_EQ(whole.at("gen_ai.usage.input_tokens"), "7");
  EXPECT_EQ(whole.at("gen_ai.usage.output_tokens"), "3");
  EXPECT_EQ(whole.at("baton.tenant"), "acme");
  EXPECT_EQ(attributes("prefill").at("baton.worker"), "prefill-0");
  EXPECT_EQ(attributes("decode").at("baton.worker"), "decode-0");
  EXPECT_EQ(attributes("handover").at("baton.kv_bytes"), "640");
  EXPECT_EQ(span(kWhole).status().code(), 0u);
}

TEST_F(RequestSpansTest, OneThatBeganATraceHasNoParent) {
  TracedRequest r = handed_over();
  r.context.parent = {};
  make(r);
  EXPECT_EQ(span(kWhole).parent_span_id(), "");
  EXPECT_EQ(span(kWhole).flags(), 0x101u);
}

// A mixed worker hands nothing over; a request that was served anew has no one hand-over.
TEST_F(RequestSpansTest, WithoutAHandoverDecodeBeginsAtTheFirstToken) {
  TracedRequest r = handed_over();
  r.facts.decode.clear();
  RequestStages& s = r.facts.stages;
  s.parked = s.exposed_transfer = s.decode_queue = s.first_step = s.handover_relay =
      s.handover_rest = s.handover = std::nullopt;
  make(r);
  EXPECT_FALSE(by_name_.contains("handover"));
  EXPECT_EQ(when("decode"), (std::pair<double, double>(20, 100)));
  EXPECT_EQ(attributes("decode").at("baton.worker"), "prefill-0");
}

// It was written the first token when most of the hand-over was done.
TEST_F(RequestSpansTest, PartsOfAHandoverEndWithIt) {
  TracedRequest r = handed_over();
  r.facts.stages.handover = milliseconds(20);
  make(r);
  EXPECT_LT(when("parked").first, 20);
  EXPECT_EQ(when("relay").second, 40);
  EXPECT_EQ(when("handover"), (std::pair<double, double>(20, 40)));
}

// Whatever workers say, nothing of it was before there was room for it.
TEST_F(RequestSpansTest, PartsOfAHandoverBeginNotBeforeTheGrant) {
  TracedRequest r = handed_over();
  r.facts.stages.handover = milliseconds(2);
  r.facts.stages.parked = seconds(100);
  make(r);
  EXPECT_EQ(when("parked").first, when("prefill").first);
  EXPECT_EQ(when("handover").second, 22);
}

TEST_F(RequestSpansTest, WhatIsRefusedIsOneSpan) {
  TracedRequest r = handed_over();
  r.facts = {};
  r.status = 404;
  r.reason = "not_found";
  r.path = "/what/a/scanner/tries";
  make(r);
  ASSERT_EQ(out_.spans_size(), 1);
  EXPECT_EQ(out_.spans(0).name(), "POST") << "names are few";
  EXPECT_EQ(attributes("POST").at("url.path"), "/what/a/scanner/tries");
  EXPECT_EQ(span("POST").status().code(), 0u) << "the caller's error, not the server's";
}

TEST_F(RequestSpansTest, AFailureIsAnErrorAlsoInMidStream) {
  for (const auto& [status, reason, code] : {std::tuple(503, "overloaded", 2u),
                                             {200, "error", 2u},
                                             {200, "disconnected", 0u},
                                             {200, "too_slow", 0u},
                                             {400, "invalid", 0u},
                                             {200, "ok", 0u}}) {
    out_.Clear();
    TracedRequest r = handed_over();
    r.status = status;
    r.reason = reason;
    make(r);
    EXPECT_EQ(out_.spans(0).status().code(), code) << status << reason;
  }
}

}  // namespace
}  // namespace baton::router
