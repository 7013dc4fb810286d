#include "sim/cluster/cluster_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

namespace baton::sim {
namespace {

using testing::HasSubstr;

const std::filesystem::path kFolder = std::filesystem::path(BATON_SOURCE_DIR) / "deploy/clusters";

TEST(ClusterSpec, TheExamplesAreRead) {
  size_t read = 0;
  for (const auto& entry : std::filesystem::directory_iterator(kFolder)) {
    const auto spec = read_cluster(entry.path());
    EXPECT_TRUE(spec) << spec.error().message;
    ++read;
  }
  EXPECT_GE(read, 3u);
}

result<ClusterSpec> parse(const std::string& text) {
  return parse_cluster(text, kFolder / "given.yaml");
}

constexpr const char* kWorkers =
    "workers:\n"
    "  - {role: mixed, profile: ../profiles/h200-llama3-8b.yaml, kv_tokens: 100000";

TEST(ClusterSpec, WhatIsLeftOutHasItsDefault) {
  const auto spec = parse(std::string(kWorkers) + "}\n");
  ASSERT_TRUE(spec) << spec.error().message;
  const WorkerGroup& g = spec->groups.at(0);
  EXPECT_EQ(spec->name, "given");
  EXPECT_EQ(g.count, 1u);
  EXPECT_NEAR(g.nic_bytes_per_second, 1 / g.profile.link.byte, 1);
  EXPECT_NEAR(g.read_latency, 20e-6, 1e-12);
  EXPECT_FALSE(spec->failures);
}

TEST(ClusterSpec, KeysHaveTheirUnits) {
  const auto spec = parse(std::string(kWorkers) +
                          ", nic_gbit: 200, read_us: 5, gpus: 4, count: 3}\n"
                          "network: {message_us: 250, spine_gbit: 800}\n"
                          "failures: {mean_seconds_between: 3600, restart_seconds: 60}\n");
  ASSERT_TRUE(spec) << spec.error().message;
  EXPECT_DOUBLE_EQ(spec->groups[0].nic_bytes_per_second, 25e9);
  EXPECT_DOUBLE_EQ(spec->spine_bytes_per_second, 100e9);
  EXPECT_DOUBLE_EQ(spec->message_latency, 250e-6);
  EXPECT_EQ(spec->num_gpus(), 12u);
  EXPECT_EQ(spec->failures->restart_seconds, 60);
}

struct Bad {
  std::string text;
  const char* said;
};
class BadCluster : public testing::TestWithParam<Bad> {};

TEST_P(BadCluster, IsRefusedWithFileAndKey) {
  const auto spec = parse(GetParam().text);
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr("given.yaml: "));
  EXPECT_THAT(spec.error().message, HasSubstr(GetParam().said));
}

INSTANTIATE_TEST_SUITE_P(
    Files, BadCluster,
    testing::Values(
        Bad{"", "no map"}, Bad{"name: x\n", "'workers' is missing"},
        Bad{std::string(kWorkers) + "}\nnodes: 3\n", "'nodes' is not known"},
        Bad{std::string(kWorkers) + ", gpu: 1}\n", "'workers[0].gpu' is not known"},
        Bad{std::string(kWorkers) + "}\nnetwork: {spine: 1}\n", "'network.spine' is not known"},
        Bad{std::string(kWorkers) + ", count: 0}\n", "'workers[0].count' = 0 is not in"},
        Bad{std::string(kWorkers) + ", count: 1.5}\n", "'workers[0].count' is no whole number"},
        Bad{std::string(kWorkers) + ", chunk_tokens: 10}\n", "less than a block"},
        Bad{"workers: [{role: both}]\n", "'workers[0].role' is none of"},
        Bad{"workers: [{role: prefill, profile: ../profiles/h200-llama3-8b.yaml, kv_tokens: 1000}]",
            "no mixed worker, and no pair"},
        Bad{"failures: {restart_seconds: 1}\n" + std::string(kWorkers) + "}\n",
            "'failures.mean_seconds_between' is missing"},
        Bad{"a: [", "given.yaml"}));

TEST(ClusterSpec, AProfileThatIsNotThereIsNamed) {
  const auto spec = parse("workers: [{role: mixed, profile: none.yaml, kv_tokens: 1000}]");
  ASSERT_FALSE(spec);
  EXPECT_THAT(spec.error().message, HasSubstr("none.yaml"));
}

}  // namespace
}  // namespace baton::sim
