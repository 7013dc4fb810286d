#include "common/latency/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "common/latency/step_model.h"
#include "tests/latency/costs.h"

namespace baton::latency {
namespace {

using testing::HasSubstr;

Profile some_profile() {
  return {.name = "some",
          .source = "a test: \"measured\", nowhere",
          .kv_bytes_per_token = 131072,
          .step = gpu_costs(),
          .link = {.latency = 3e-5, .byte = 1e-10}};
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

std::string why_not(const std::string& text) {
  const auto profile = parse_profile(text, "p.yaml");
  EXPECT_FALSE(profile) << text;
  if (profile) return {};
  EXPECT_EQ(profile.error().code, Errc::kInvalidArgument);
  EXPECT_THAT(profile.error().message, HasSubstr("p.yaml"));
  return profile.error().message;
}

TEST(Profile, IsReadAsItWasWritten) {
  const auto read = parse_profile(to_yaml(some_profile()), "text");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->name, "some");
  EXPECT_EQ(read->source, some_profile().source);
  EXPECT_EQ(read->kv_bytes_per_token, 131072u);
  EXPECT_NEAR(read->step.attended_pair, 0.8e-9, 1e-15);
  EXPECT_NEAR(read->step.ridge_rows, 190, 1e-9);
  EXPECT_NEAR(read->link.byte, 1e-10, 1e-16);
}

TEST(Profile, JsonIsYaml) {
  const auto read = parse_profile(
      R"({"name": "j", "kv_bytes_per_token": 8, "step": {"fixed_us": 1, "row_us": 2,
          "row_beyond_us": 0, "ridge_rows": 0, "context_token_us": 0, "attended_pair_us": 0,
          "output_us": 0}, "link": {"latency_us": 0, "byte_us": 0.001}})",
      "j.json");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_NEAR(read->step.row, 2e-6, 1e-12);
}

TEST(Profile, RefusesByName) {
  const std::string good = to_yaml(some_profile());
  EXPECT_THAT(why_not(with(good, "row_us", "rov_us")), HasSubstr("'step.rov_us' is not known"));
  EXPECT_THAT(why_not(with(good, "  output_us: 4\n", "")),
              HasSubstr("'step.output_us' is missing"));
  EXPECT_THAT(why_not(with(good, "output_us: 4", "output_us: -4")), HasSubstr("step.output_us"));
  EXPECT_THAT(why_not(with(good, "output_us: 4", "output_us: .nan")), HasSubstr("step.output_us"));
  EXPECT_THAT(why_not(with(good, "output_us: 4", "output_us: .inf")), HasSubstr("step.output_us"));
  EXPECT_THAT(why_not(with(good, "output_us: 4", "output_us: four")), HasSubstr("no number"));
  EXPECT_THAT(why_not(with(good, "output_us: 4", "output_us: [4]")), HasSubstr("no number"));
  EXPECT_THAT(why_not(with(good, "fixed_us: 4300", "fixed_us: 0")), HasSubstr("above 0"));
  EXPECT_THAT(why_not(with(good, "131072", "0.5")), HasSubstr("kv_bytes_per_token"));
  EXPECT_THAT(why_not(with(good, "link:", "lynk:")), HasSubstr("'lynk' is not known"));
  why_not("[1, 2]");
  why_not("");
  why_not("name: [");
  why_not("step: 5");
}

TEST(Profile, OfAFileThatIsNotThereIsAnError) {
  const auto profile = read_profile("/nowhere/p.yaml");
  ASSERT_FALSE(profile);
  EXPECT_EQ(profile.error().code, Errc::kIo);
}

// Those that are shipped.
TEST(Profile, AllThatAreShippedAreRead) {
  int found = 0;
  const std::filesystem::path folder = std::filesystem::path(BATON_SOURCE_DIR) / "deploy/profiles";
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    const auto profile = read_profile(file.path());
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_EQ(profile->name, file.path().stem().string());
    EXPECT_FALSE(profile->source.empty());
    EXPECT_GT(step_time(profile->step, StepWork::decode(1, 100)), Duration::zero());
    ++found;
  }
  EXPECT_GE(found, 2);
}

}  // namespace
}  // namespace baton::latency
