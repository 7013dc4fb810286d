#include "cli/up_config.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cli/banner.h"
#include "tests/fakes/temp_dir.h"

namespace baton::cli {
namespace {

class UpConfigTest : public ::testing::Test {
 protected:
  void TearDown() override {
    unsetenv("BATON_MIXED");
    std::filesystem::remove(file_);
  }
  // "prefill decode mixed" that these arguments ask for, or the error.
  static std::string pools(std::vector<std::string> args) {
    args.insert(args.end(), {"--model", "m"});
    UpConfig c;
    const auto outcome = parse_up(args, c);
    if (!outcome) return outcome.error().message;
    return std::to_string(c.prefill) + " " + std::to_string(c.decode) + " " +
           std::to_string(c.mixed);
  }
  std::string file(const std::string& text) {
    std::ofstream(file_) << text;
    return file_;
  }
  const std::string file_ = (std::filesystem::temp_directory_path() /
                             ("baton_up_config_test_" + std::to_string(::getpid()) + ".yaml"))
                                .string();
};

TEST_F(UpConfigTest, MixedWorkersReplaceTheOthersUnlessThoseAreAskedFor) {
  EXPECT_EQ(pools({}), "1 1 0");
  EXPECT_EQ(pools({"--mixed", "2"}), "0 0 2");
  EXPECT_EQ(pools({"--mixed=2", "--prefill", "1"}), "1 0 2");
  EXPECT_EQ(pools({"--mixed", "2", "--decode", "3"}), "0 3 2");
  EXPECT_EQ(pools({"--auto", "3"}), "0 0 0");
  EXPECT_EQ(pools({"--auto", "3", "--prefill", "1"}), "1 0 0");
}

TEST_F(UpConfigTest, NoMixedWorkersIsTheDefault) { EXPECT_EQ(pools({"--mixed", "0"}), "1 1 0"); }

TEST_F(UpConfigTest, MixedMayComeFromAVariableOrAFile) {
  EXPECT_EQ(pools({"--config", file("mixed: 1\n")}), "0 0 1");
  EXPECT_EQ(pools({"--config", file("mixed: 1\nprefill: 2\n")}), "2 0 1");
  setenv("BATON_MIXED", "1", 1);
  EXPECT_EQ(pools({}), "0 0 1");
  EXPECT_EQ(pools({"--mixed", "0"}), "1 1 0");
}

TEST_F(UpConfigTest, AnEmptyQuestionIsRefusedButForTheFile) {
  EXPECT_NE(pools({"--once", ""}).find("--once is empty"), std::string::npos);
  EXPECT_EQ(pools({"--once", "x"}), "1 1 0");
  EXPECT_EQ(pools({"--config", file("once: \"\"\n")}), "1 1 0");
}

TEST_F(UpConfigTest, PoolsThatCannotAnswerAreRefused) {
  EXPECT_NE(pools({"--prefill", "0"}).find("nothing can answer"), std::string::npos);
  EXPECT_NE(pools({"--mixed", "0", "--decode", "0"}).find("nothing can answer"), std::string::npos);
}

TEST_F(UpConfigTest, TooManyWorkersAreRefusedHoweverMany) {
  EXPECT_EQ(pools({"--prefill", "32", "--decode", "32"}), "32 32 0");
  for (const char* many : {"64", "4294967295"}) {
    EXPECT_NE(pools({"--prefill", many}).find("more than 64"), std::string::npos) << many;
  }
}

TEST_F(UpConfigTest, AnEmulatedDeviceNeedsAProfile) {
  EXPECT_NE(pools({"--device", "emulated"}).find("--profile"), std::string::npos);
  EXPECT_EQ(pools({"--device", "emulated", "--profile", "p.yaml"}), "1 1 0");
}

std::string value_of(const std::vector<std::string>& args, const std::string& flag) {
  const auto found = std::find(args.begin(), args.end(), flag);
  return found == args.end() || found + 1 == args.end() ? "" : *(found + 1);
}

TEST_F(UpConfigTest, TheRouterEndsBeforeItWouldBeKilled) {
  UpConfig c;
  const auto router = router_args(c, 8000, {"127.0.0.1:7001"});
  EXPECT_EQ(value_of(router, "--drain-seconds"), "10");
  EXPECT_LT(kRouterDrain, kRouterGrace);
  const auto worker = worker_args(c, {"decode", "decode-0", "127.0.0.1:0", "127.0.0.1:0"});
  EXPECT_EQ(value_of(worker, "--drain-seconds"), "3");
  EXPECT_LT(kWorkerDrain, kWorkerGrace);
}

TEST_F(UpConfigTest, RanksOnGpusGetOneEach) {
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
  const std::vector<std::string> two = {"--device", "cuda", "--prefill-tensor-parallel", "2"};
  EXPECT_EQ(pools(two), "the 2 ranks of a prefill worker need a GPU each, and --gpus is 1");
  EXPECT_EQ(pools({"--prefill-tensor-parallel", "2"}), "1 1 0") << "on the CPU there are none";
  UpConfig c;
  std::vector<std::string> args = {"--model", "m", "--gpus", "3"};
  args.insert(args.end(), two.begin(), two.end());
  ASSERT_TRUE(parse_up(args, c));
  EXPECT_EQ(value_of(worker_args(c, {"prefill", "p", "", "", 2}), "--rank-gpus"), "2,0");
  const auto alone = worker_args(c, {"decode", "d", "", "", 1});
  EXPECT_EQ(value_of(alone, "--rank-gpus"), "");
  EXPECT_EQ(value_of(alone, "--gpu"), "1");
  c.gpus = 1;
  setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 1);
  EXPECT_EQ(pools(two), "1 1 0");
  unsetenv("NCCL_MULTI_RANK_GPU_ENABLE");
  EXPECT_EQ(value_of(worker_args(c, {"prefill", "p", "", ""}), "--rank-gpus"), "0,0");
}

TEST_F(UpConfigTest, EveryChildHasTheSecretAndTheCertificate) {
  UpConfig c;
  ASSERT_TRUE(parse_up({"--model", "m", "--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a"}, c));
  c.secret_file = "s";
  for (const auto& child : {router_args(c, 8000, {}), worker_args(c, {})}) {
    EXPECT_EQ(value_of(child, "--secret-file"), "s");
    EXPECT_EQ(value_of(child, "--tls-cert"), "c");
    EXPECT_EQ(value_of(child, "--tls-key"), "k");
    EXPECT_EQ(value_of(child, "--tls-ca"), "a");
  }
}

TEST_F(UpConfigTest, TheRouterHasTheClassesThatUpWasGiven) {
  const std::vector<std::string> as_words = {"a:", "ttft=1s", "b:", "best-effort"};
  const std::vector<std::string> whole = {"a: ttft=1s", "b: best-effort"};
  const std::string yaml = file("slo_class: ['a: ttft=1s', 'b: best-effort']\n");
  for (const auto& [given, expected] :
       {std::pair(
            std::vector<std::string>{"--slo-class", "a: ttft=1s", "--slo-class", "b: best-effort"},
            as_words),
        std::pair(std::vector<std::string>{"--config", yaml}, whole)}) {
    UpConfig c;
    auto args = given;
    args.insert(args.end(), {"--model", "m", "--default-slo-class", "b"});
    const auto outcome = parse_up(args, c);
    ASSERT_TRUE(outcome) << outcome.error().message;
    const auto router = router_args(c, 8000, {"127.0.0.1:7001"});
    EXPECT_EQ(value_of(router, "--default-slo-class"), "b");
    const auto flag = std::find(router.begin(), router.end(), "--slo-class");
    ASSERT_LE(static_cast<ptrdiff_t>(expected.size()), router.end() - flag - 1);
    EXPECT_TRUE(std::equal(expected.begin(), expected.end(), flag + 1));
    EXPECT_EQ(*(flag + 1 + static_cast<ptrdiff_t>(expected.size())), "--workers");
  }
  EXPECT_NE(pools({"--slo-class", "a: ttft=1"}).find("--slo-class a: ttft"), std::string::npos);
  EXPECT_NE(pools({"--default-slo-class", "a"}).find("no class 'a'"), std::string::npos);
}

TEST_F(UpConfigTest, WhatIsRecordedIsAFileForEachChild) {
  UpConfig c;
  ASSERT_TRUE(parse_up({"--model", "m", "--record", "r"}, c));
  EXPECT_EQ(value_of(router_args(c, 8000, {}), "--record-requests"), "r/requests.csv");
  EXPECT_EQ(value_of(worker_args(c, {"mixed", "mixed-0", "", ""}), "--record-steps"),
            "r/steps-mixed-0.csv");
}

TEST_F(UpConfigTest, TheRouterListensOnIpv6InBrackets) {
  for (const char* host : {"::1", "[::1]"}) {
    UpConfig c;
    ASSERT_TRUE(parse_up({"--model", "m", "--host", host}, c));
    EXPECT_EQ(value_of(router_args(c, 8000, {}), "--listen"), "[::1]:8000");
  }
}

TEST_F(UpConfigTest, TheRouterTellsTheCollectorOfTraces) {
  UpConfig c;
  ASSERT_TRUE(parse_up(
      {"--model", "m", "--otlp-endpoint", "http://c:4318", "--trace-sample-ratio", "0.25"}, c));
  EXPECT_EQ(value_of(router_args(c, 8000, {}), "--otlp-endpoint"), "http://c:4318");
  EXPECT_EQ(value_of(router_args(c, 8000, {}), "--trace-sample-ratio"), "0.25");
  UpConfig bad;
  const auto refused = parse_up({"--model", "m", "--otlp-endpoint", "grpc://c:4317"}, bad);
  ASSERT_FALSE(refused);
  EXPECT_EQ(
      refused.error().message,
      "--otlp-endpoint: the endpoint 'grpc://c:4317' begins with neither http:// nor https://");
}

TEST_F(UpConfigTest, FilesOfSecretsThatEverybodyMayReadAreRefused) {
  const fakes::TempDir dir;
  const std::string path = (dir / "secrets").string();
  std::ofstream(path) << "authorization: key-1\n";
  ::chmod(path.c_str(), 0604);
  const std::vector<std::vector<std::string>> cases = {
      {"--api-key-file", path},
      {"--admin-key-file", path},
      {"--tenants-file", path},
      {"--otlp-endpoint", "http://c:4318", "--otlp-headers-file", path}};
  for (const auto& flags : cases) {
    std::vector<std::string> args = {"--model", "m"};
    args.insert(args.end(), flags.begin(), flags.end());
    UpConfig config;
    const auto refused = parse_up(args, config);
    ASSERT_FALSE(refused) << flags[0];
    EXPECT_NE(refused.error().message.find(path + "': everybody may read it; chmod 600"),
              std::string::npos)
        << refused.error().message;
  }
}

TEST_F(UpConfigTest, UsageShowsTheKeysHeaderWithoutTheKey) {
  UpConfig c;
  ASSERT_TRUE(parse_up({"--model", "m"}, c));
  EXPECT_EQ(usage_text(c, "http://h/v1").find("API_KEY"), std::string::npos);
  c.access.api_key_file = "keys";
  const std::string shown = usage_text(c, "http://h/v1");
  EXPECT_NE(shown.find("-H \"Authorization: Bearer $API_KEY\""), std::string::npos);
  EXPECT_NE(shown.find("api_key=os.environ[\"API_KEY\"]"), std::string::npos);
}

TEST_F(UpConfigTest, TimingsLeaveOutWhatWasNotMeasured) {
  AskTimings t;
  t.prompt_tokens = 7;
  EXPECT_EQ(timings_text(t), "[7 prompt + 0 output tokens]");
  t.ttft = milliseconds(31);
  t.output_tokens = 1;
  EXPECT_EQ(timings_text(t), "[TTFT 31 ms, 7 prompt + 1 output tokens]");
  t.tpot = microseconds(4200);
  t.output_tokens = 2;
  EXPECT_EQ(timings_text(t), "[TTFT 31 ms, TPOT 4.2 ms, 7 prompt + 2 output tokens]");
}

}  // namespace
}  // namespace baton::cli
