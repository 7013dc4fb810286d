#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>

#include "sim/cluster/draw.h"
#include "sim/cluster/step_times.h"
#include "sim/cluster/traffic.h"

namespace baton::sim {
namespace {

using testing::HasSubstr;

constexpr const char* kAzure =
    "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    "2023-11-16 23:59:59.9000000,4808,10\n"
    "2023-11-17 00:00:00.1500000,3180,8\n"
    "2023-11-17 00:00:02,0,0";
constexpr const char* kMooncake =
    R"({"timestamp": 0, "input_length": 1030, "output_length": 6, "hash_ids": [0, 1, 2]})"
    "\n"
    R"({"timestamp": 3000, "input_length": 1024, "output_length": 4, "hash_ids": [0, 1]})"
    "\n"
    R"({"timestamp": 3500, "input_length": 600, "output_length": 4, "hash_ids": [0, 7]})";
constexpr const char* kLengths =
    "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\r\n"
    "74,918,992,0.08\r\n"
    "290,905,1195,0.32\r\n";

TEST(TraceFile, AzuresIsReadAsItIs) {
  const auto trace = parse_trace(kAzure, "a.csv");
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_TRUE(trace->has_arrivals);
  ASSERT_EQ(trace->entries.size(), 3u);  // the last line has no newline
  EXPECT_EQ(trace->entries[0].at, Duration::zero());
  EXPECT_EQ(trace->entries[1].at, milliseconds(250));  // over midnight
  EXPECT_EQ(trace->entries[2].at, milliseconds(2100));
  EXPECT_EQ(trace->entries[1].input_tokens, 3180u);
  EXPECT_EQ(trace->entries[1].output_tokens, 8u);
  EXPECT_EQ(trace->entries[2].input_tokens, 1u);  // of nothing there is at least one
}

TEST(TraceFile, LengthsAreReadAsTheyAre) {
  const auto trace = parse_trace(kLengths, "l.csv");
  ASSERT_TRUE(trace) << trace.error().message;
  EXPECT_FALSE(trace->has_arrivals);
  ASSERT_EQ(trace->entries.size(), 2u);
  EXPECT_EQ(trace->entries[1].input_tokens, 290u);
  EXPECT_EQ(trace->longest_output(), 918u);
}

TEST(TraceFile, EqualBlocksOfMooncakesGiveEqualTokens) {
  const auto trace = parse_trace(kMooncake, "m.jsonl");
  ASSERT_TRUE(trace) << trace.error().message;
  const auto traffic =
      Traffic::make(*trace, {.arrivals = {Arrivals::Kind::kTrace}, .count = 6, .seed = 3});
  ASSERT_TRUE(traffic);
  std::vector<std::vector<TokenId>> prompts(6);
  for (size_t i = 0; i < 6; ++i) traffic->prompt(i, 2, 1000, prompts[i]);
  ASSERT_EQ(prompts[0].size(), 1030u);
  const auto equal = [&](size_t a, size_t b, size_t begin, size_t end) {
    return std::equal(prompts[a].begin() + begin, prompts[a].begin() + end,
                      prompts[b].begin() + begin);
  };
  EXPECT_TRUE(equal(0, 1, 0, 1024));
  EXPECT_TRUE(equal(0, 2, 0, 512));
  EXPECT_FALSE(equal(0, 2, 512, 600));
  EXPECT_FALSE(equal(0, 3, 0, 512));  // of the next round
  for (const TokenId t : prompts[0]) EXPECT_TRUE(t >= 2 && t < 1002);
}

struct Bad {
  const char* text;
  const char* said;
};
class BadTrace : public testing::TestWithParam<Bad> {};

TEST_P(BadTrace, IsRefusedWithFileAndLine) {
  const auto trace = parse_trace(GetParam().text, "bad.csv");
  ASSERT_FALSE(trace);
  EXPECT_THAT(trace.error().message, HasSubstr("bad.csv: line "));
  EXPECT_THAT(trace.error().message, HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    Lines, BadTrace,
    testing::Values(
        Bad{"", "line 1 is the end"}, Bad{"a,b\n1,2\n", "line 1 is the beginning of no known"},
        Bad{"TIMESTAMP,ContextTokens,GeneratedTokens\n", "no request"},
        Bad{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1\n",
            "line 2 has 2 fields instead of 3"},
        Bad{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,2\n2023-13-16 "
            "18:17:03,1,2\n",
            "line 3 has no time"},
        Bad{"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.x,1,2\n", "no time"},
        Bad{"TIMESTAMP,ContextTokens,GeneratedTokens\n\n2023-11-16 18:17:03,-1,2\n",
            "line 3 field 2 is no whole number"},
        Bad{"num_prefill_tokens,num_decode_tokens\n1,2\n3\n", "line 3 has 1 fields"},
        Bad{"num_prefill_tokens,num_decode_tokens\n1,99999999999\n", "line 2 field 2"},
        Bad{"{}\n", "line 1 has no 'timestamp'"}, Bad{"{\"timestamp\": 0\n", "line 1 is no JSON"},
        Bad{R"({"timestamp":0,"input_length":10,"output_length":1})", "no list 'hash_ids'"},
        Bad{R"({"timestamp":0,"input_length":513,"output_length":1,"hash_ids":[1]})",
            "1 hash ids for 513"},
        Bad{R"({"timestamp":0,"input_length":5,"output_length":1,"hash_ids":["a"]})",
            "no whole number"},
        Bad{R"({"timestamp":-1,"input_length":5,"output_length":1,"hash_ids":[1]})",
            "no 'timestamp'"}));

TEST(TraceFile, DrawnLengthsHaveTheirMeans) {
  const auto trace = read_trace("lengths:756,200");
  ASSERT_TRUE(trace);
  EXPECT_NEAR(trace->mean_input(), 756, 0.03 * 756);
  EXPECT_NEAR(trace->mean_output(), 200, 0.03 * 200);
  const auto fixed = read_trace("fixed:512,64");
  ASSERT_TRUE(fixed);
  EXPECT_EQ(fixed->entries.size(), 1u);
  EXPECT_EQ(fixed->entries[0].input_tokens, 512u);
  for (const char* bad : {"lengths:1", "lengths:a,b", "lengths:", "lengths:1,2,3", "fixed:9,"}) {
    EXPECT_FALSE(read_trace(bad)) << bad;
  }
}

// --- traffic -------------------------------------------------------------------------------------

TEST(Traffic, TheTracesOwnArrivalsAreRescaled) {
  const auto trace = *parse_trace(kAzure, "a.csv");
  const auto own = *Traffic::make(trace, {.arrivals = {Arrivals::Kind::kTrace}});
  EXPECT_EQ(own.at(1), milliseconds(250));
  const auto faster = *Traffic::make(
      trace, {.arrivals = {Arrivals::Kind::kTrace}, .rate = 2 * own.rate(), .count = 5});
  EXPECT_EQ(faster.at(2), milliseconds(1050));
  EXPECT_EQ(faster.at(1), milliseconds(125));
  EXPECT_GT(faster.at(3), faster.at(2));  // the next round
}

TEST(Traffic, WhatCannotBeIsRefused) {
  const auto trace = *parse_trace(kLengths, "l.csv");
  EXPECT_FALSE(Traffic::make(trace, {.arrivals = {Arrivals::Kind::kTrace}, .rate = 1}));
  EXPECT_FALSE(Traffic::make(trace, {.arrivals = {Arrivals::Kind::kPoisson}}));
  for (const char* bad : {"", "gamma", "gamma:", "gamma:0", "gamma:x", "Poisson"}) {
    EXPECT_FALSE(parse_arrivals(bad)) << bad;
  }
  EXPECT_EQ(parse_arrivals("gamma:2.5")->to_string(), "gamma:2.5");
}

TEST(Traffic, GapsHaveTheirMeanAndVariation) {
  const auto trace = *parse_trace(kLengths, "l.csv");
  for (const double cv : {0.25, 0.5, 1.0, 2.0, 4.0}) {
    Arrivals arrivals{Arrivals::Kind::kGamma, cv};
    if (cv == 1) arrivals.kind = Arrivals::Kind::kPoisson;
    const auto traffic = *Traffic::make(trace, {arrivals, 20, 200'000, 5});
    double sum = 0, squares = 0;
    for (size_t i = 1; i < traffic.size(); ++i) {
      const double gap = to_seconds(traffic.at(i) - traffic.at(i - 1));
      sum += gap;
      squares += gap * gap;
    }
    const double n = static_cast<double>(traffic.size() - 1), mean = sum / n;
    EXPECT_NEAR(mean, 0.05, 0.03 * 0.05) << cv;
    EXPECT_NEAR(std::sqrt(squares / n - mean * mean) / mean, cv, 0.05 * cv) << cv;
  }
}

// --- recorded steps ------------------------------------------------------------------------------

constexpr const char* kSteps =
    "rows,decode_rows,context,attended,outputs,seconds\n"
    "4,4,400,400,4,0.010\n"
    "4,4,400,400,4,0.012\n"
    "100,0,100,5050,1,0.5\n";

TEST(StepTimes, RecordedOnesAreReplayedInTheirOrder) {
  const auto recorded = RecordedSteps::parse(kSteps, "s.csv");
  ASSERT_TRUE(recorded) << recorded.error().message;
  const latency::StepCosts costs{.fixed = 0.005, .row = 0.001};
  StepTimes times(costs, *recorded);
  const auto decode = latency::StepWork::decode(4, 400);
  EXPECT_EQ(times.of(decode), milliseconds(10));
  EXPECT_EQ(times.of(decode), milliseconds(12));
  EXPECT_EQ(times.of(decode), milliseconds(10));
  EXPECT_EQ(times.of(latency::StepWork::prefill(100, 0)), milliseconds(500));
}

TEST(StepTimes, OthersTakeWhatTheCostsSayAsFarAsThoseWereRight) {
  const latency::StepCosts costs{.fixed = 0.005, .row = 0.001};
  StepTimes times(costs, *RecordedSteps::parse(kSteps, "s.csv"));
  // 9 ms by the costs took 10; 105 ms took 500.
  EXPECT_NEAR(to_seconds(times.of(latency::StepWork::decode(5, 500))), 0.010 * 10 / 9, 1e-6);
  EXPECT_NEAR(to_seconds(times.of(latency::StepWork::prefill(50, 0))), 0.055 * 500 / 105, 1e-6);
}

TEST(StepTimes, EachWorkerHasItsOwnWhereTheyAreThere) {
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("baton_step_times_" + std::to_string(::getpid()));
  std::filesystem::create_directory(folder);
  const auto read = [&] { return StepRecordings::read(folder); };
  EXPECT_FALSE(read());  // there is no file
  const std::string header = "rows,decode_rows,context,attended,outputs,seconds\n";
  std::ofstream(folder / "steps-mixed-0.csv") << header << "1,1,1,1,1,0.5\n";
  std::ofstream(folder / "steps-mixed-1.csv") << header << "2,2,2,2,2,0.7\n";
  std::ofstream(folder / "requests.csv") << "else\n";
  const auto recorded = read();
  ASSERT_TRUE(recorded) << recorded.error().message;
  EXPECT_EQ(recorded->of("mixed-1").steps().size(), 1u);
  EXPECT_EQ(recorded->of("mixed-1").steps()[0].seconds, 0.7);
  EXPECT_EQ(recorded->of("mixed-2").steps().size(), 2u);
  const auto file = StepRecordings::read(folder / "steps-mixed-0.csv");
  ASSERT_TRUE(file);
  EXPECT_EQ(file->of("mixed-1").steps()[0].seconds, 0.5);
  std::ofstream(folder / "steps-mixed-1.csv") << "bad\n";
  EXPECT_FALSE(read());
  std::filesystem::remove_all(folder);
}

TEST(StepTimes, AMalformedLineIsRefused) {
  for (const char* bad : {"", "a\n", "rows,decode_rows,context,attended,outputs,seconds\n",
                          "rows,decode_rows,context,attended,outputs,seconds\n1,2,3,4,5,1\n",
                          "rows,decode_rows,context,attended,outputs,seconds\n1,1,3,4,5,0\n",
                          "rows,decode_rows,context,attended,outputs,seconds\n1,1,3,4,5\n",
                          "rows,decode_rows,context,attended,outputs,seconds\n1,1,3,4,5,nan\n"}) {
    const auto steps = RecordedSteps::parse(bad, "s.csv");
    ASSERT_FALSE(steps) << bad;
    EXPECT_THAT(steps.error().message, HasSubstr("s.csv: line "));
  }
}

}  // namespace
}  // namespace baton::sim
