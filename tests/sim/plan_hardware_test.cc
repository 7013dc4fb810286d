#include <gmock/gmock.h>

#include <filesystem>

#include "common/latency/step_model.h"
#include "tests/sim/plan_fixture.h"

namespace baton::sim {
namespace {

using testing::HasSubstr;
using Hardwares = PlanTest;

const std::string kTable = R"(
name: two kinds
message_us: 50
gpus_per_node: 4
devices:
  - device: big
    cost: 2
    available: 6
    nic_gbit: 400
    node_gbit: 800
    derive_tensor_parallel: [1, 2, 4]
    figures: {memory_gib: 12, gbyte_per_second: 3000, tflop_per_second: 500, step_overhead_us: 500,
              all_reduce_us: 5, all_reduce_gbyte_per_second: 200}
)";

TEST_F(Hardwares, WhatFitsIsDerivedOfAModel) {
  const auto h = parse_hardware(kTable, "a/b.yaml", model());
  ASSERT_TRUE(h) << h.error().message;
  EXPECT_EQ(h->name, "two kinds");
  EXPECT_DOUBLE_EQ(h->message_latency, 50e-6);
  ASSERT_EQ(h->workers.size(), 3u);  // 10.8 GiB and more: 10 GB of weights fit
  const WorkerOption& two = h->workers[1];
  EXPECT_EQ(two.to_string(), "big TP2");
  EXPECT_TRUE(two.derived());
  EXPECT_THAT(two.profile.source, HasSubstr("derived"));
  EXPECT_DOUBLE_EQ(two.cost, 4);
  EXPECT_EQ(two.available, 6u);
  EXPECT_DOUBLE_EQ(two.nic_bytes_per_second, 100e9);
  EXPECT_DOUBLE_EQ(two.node_bytes_per_second, 200e9);
  EXPECT_NEAR(two.kv_tokens, (0.9 * 24 * 1024 * 1024 * 1024 - 10e9) / 100'000, 1);
}

TEST_F(Hardwares, WhatDoesNotFitIsLeftOut) {
  ModelShape large = model();
  large.weight_bytes = 30e9;
  const auto h = parse_hardware(kTable, "b.yaml", large);
  ASSERT_TRUE(h);
  ASSERT_EQ(h->workers.size(), 1u);
  EXPECT_EQ(h->workers[0].tensor_parallel, 4u);
  large.weight_bytes = 300e9;
  EXPECT_THAT(parse_hardware(kTable, "b.yaml", large).error().message, HasSubstr("fits"));
  ModelShape odd = model();
  odd.kv_heads = 2;
  EXPECT_EQ(parse_hardware(kTable, "b.yaml", odd)->workers.size(), 2u);
}

TEST_F(Hardwares, ErrorsNameFileAndKey) {
  const auto message = [](std::string from, const std::string& to, std::string text = kTable) {
    text.replace(text.find(from), from.size(), to);
    return parse_hardware(text, "dir/t.yaml", model()).error().message;
  };
  EXPECT_THAT(message("cost: 2", "price: 2"), HasSubstr("dir/t.yaml: 'devices[0].price'"));
  EXPECT_THAT(message("tflop_per_second", "tflops"), HasSubstr("tflop_per_second"));
  EXPECT_THAT(message("[1, 2, 4]", "[1, 8]"), HasSubstr("derive_tensor_parallel"));
  EXPECT_THAT(message("nic_gbit: 400", "nic_gbit: fast"), HasSubstr("nic_gbit"));
  EXPECT_THAT(message("gpus_per_node: 4", "gpus_per_node: 0.5"), HasSubstr("gpus_per_node"));
  EXPECT_THAT(message("devices:", "device:"), HasSubstr("'devices' is missing"));
  EXPECT_THAT(parse_hardware(kTable, "t.yaml", {}).error().message, HasSubstr("no model"));
  EXPECT_THAT(parse_hardware("[", "t.yaml", {}).error().message, HasSubstr("t.yaml"));
}

TEST_F(Hardwares, TheExamplesAreRead) {
  const std::filesystem::path plans = std::filesystem::path(BATON_SOURCE_DIR) / "deploy/plans";
  const auto small = read_model_shape(plans / "models/llama3-8b.yaml");
  const auto large = read_model_shape(plans / "models/llama3-70b.yaml");
  ASSERT_TRUE(small && large);
  EXPECT_EQ(read_hardware(plans / "h200-llama3-8b.yaml", {})->workers.size(), 1u);
  const auto measured = read_hardware(plans / "h200-llama3-8b.yaml", *small);
  ASSERT_TRUE(measured) << measured.error().message;
  ASSERT_EQ(measured->workers.size(), 3u);
  EXPECT_FALSE(measured->workers[0].derived());
  EXPECT_THAT(measured->workers[1].profile.source, HasSubstr("h200-llama3-8b"));
  EXPECT_FALSE(read_hardware(plans / "h200-llama3-8b.yaml", *large));
  const auto roofs = read_hardware(plans / "h200.yaml", *large);
  ASSERT_TRUE(roofs) << roofs.error().message;
  EXPECT_EQ(roofs->workers.front().tensor_parallel, 2u);  // 141 GB of weights
  EXPECT_TRUE(read_hardware(plans / "h200-ethernet.yaml", *large));
  EXPECT_EQ(read_hardware(plans / "h100-a100.yaml", *small)->workers.size(), 8u);
}

// The roofs of the device that was measured give about what was measured.
TEST_F(Hardwares, RoofsAreNearTheMeasuredDevice) {
  const std::filesystem::path plans = std::filesystem::path(BATON_SOURCE_DIR) / "deploy/plans";
  const auto shape = *read_model_shape(plans / "models/llama3-8b.yaml");
  const auto measured = *read_hardware(plans / "h200-llama3-8b.yaml", {});
  const auto roofs = *read_hardware(plans / "h200.yaml", shape);
  for (const latency::StepWork work :
       {latency::StepWork::decode(1, 500), latency::StepWork::decode(64, 64 * 800),
        latency::StepWork::prefill(800, 0), latency::StepWork::prefill(4000, 0)}) {
    const double is = to_seconds(step_time(measured.workers[0].profile.step, work));
    const double derived = to_seconds(step_time(roofs.workers[0].profile.step, work));
    EXPECT_NEAR(derived / is, 1, 0.25) << work.rows;
  }
}

TEST_F(Hardwares, DegreesDivideTheWorkAndPayForTheirMessages) {
  const latency::StepCosts one = profile().step;
  EXPECT_EQ(shared_by(one, model(), figures(), 1), one);
  const auto prompt = latency::StepWork::prefill(2000, 0);
  const auto step = latency::StepWork::decode(1, 500);
  double last_prompt = to_seconds(step_time(one, prompt));
  double last_step = to_seconds(step_time(one, step));
  for (const uint32_t degree : {2, 4, 8}) {
    const latency::StepCosts c = shared_by(one, model(), figures(), degree);
    const double p = to_seconds(step_time(c, prompt)), s = to_seconds(step_time(c, step));
    EXPECT_LT(p, last_prompt);
    EXPECT_GT(p, last_prompt / 2);
    EXPECT_LT(s, last_step);
    EXPECT_GT(s, figures().step_overhead);
    last_prompt = p;
    last_step = s;
  }
  DeviceFigures slow = figures();
  slow.all_reduce_latency = 1e-3;
  EXPECT_GT(step_time(shared_by(one, model(), slow, 2), step), step_time(one, step));
}

}  // namespace
}  // namespace baton::sim
