#include "sim/plan/plan_report.h"

#include <gmock/gmock.h>

#include <boost/json/parse.hpp>
#include <filesystem>
#include <fstream>

#include "tests/sim/plan_fixture.h"

namespace baton::sim {
namespace {

using testing::HasSubstr;

class PlanReport : public PlanTest {
 protected:
  PlanReport() : table_(table({option(1), option(2)})) {
    folder_ = std::filesystem::path(testing::TempDir()) / "plan_report_test";
    std::filesystem::create_directories(folder_);
    table_.workers[0].profile_path = folder_ / "measured.yaml";
    save("measured.yaml", latency::to_yaml(table_.workers[0].profile));
    layout_ = {.prefill = {&table_.workers[1], 1},
               .decode = {&table_.workers[0], 2},
               .chunk_tokens = 2048};
    plan_.split = Winner{layout_, 90, 100};
    plan_.split_verified.attained = {0.9, 0.91, 0.92};
    plan_.mixed = Winner{{.mixed = {&table_.workers[0], 4}, .chunk_tokens = 512}, 60, 50};
    plan_.impossible = 0.015;
    plan_.alone = {{&table_.workers[1], Phase::kPrefill, 2048, false, 300, 250}};
  }
  ~PlanReport() override { std::filesystem::remove_all(folder_); }
  void save(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
  }

  std::filesystem::path folder_;
  Hardware table_;
  Layout layout_;
  PlanResult plan_;
  const PlanOptions options_ = options(4);
  const PlanHead head_{"hw", "tr", &options_};
};

TEST_F(PlanReport, TheClusterFileIsReadAsWhatWasSimulated) {
  const ClusterFiles files = cluster_files(table_, layout_, "made", folder_);
  ASSERT_EQ(files.profiles.size(), 1u);  // of the pair, which is derived
  for (const PlanFile& p : files.profiles) save(p.name, p.text);
  save("made.yaml", files.cluster);
  const auto read = read_cluster(folder_ / "made.yaml");
  ASSERT_TRUE(read) << read.error().message;
  const ClusterSpec spec = cluster_of(table_, layout_);
  EXPECT_EQ(read->name, "made");
  EXPECT_DOUBLE_EQ(read->message_latency, spec.message_latency);
  ASSERT_EQ(read->groups.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const WorkerGroup &a = read->groups[i], &b = spec.groups[i];
    EXPECT_EQ(a.role, b.role);
    EXPECT_EQ(a.count, b.count);
    EXPECT_EQ(a.gpus, b.gpus);
    EXPECT_EQ(a.kv_tokens, b.kv_tokens);
    EXPECT_EQ(a.chunk_tokens, b.chunk_tokens);
    EXPECT_EQ(a.max_sequences, b.max_sequences);
    EXPECT_NEAR(a.nic_bytes_per_second, b.nic_bytes_per_second, 1);
    EXPECT_NEAR(a.read_latency, b.read_latency, 1e-12);
    EXPECT_NEAR(a.profile.step.fixed, b.profile.step.fixed, 1e-8);
    EXPECT_NEAR(a.profile.step.row, b.profile.step.row, 1e-10);
  }
  EXPECT_EQ(read->groups[1].profile_path, "measured.yaml");
}

TEST_F(PlanReport, TellsBothAndWhatIsDerived) {
  const std::string text = plan_table(head_, plan_);
  EXPECT_THAT(text, HasSubstr("1.50 % of the requests no idle machine could serve in time"));
  EXPECT_THAT(text, HasSubstr("* split      4        4        100       25"));
  EXPECT_THAT(text, HasSubstr("1 × gpu TP2 prefill + 2 × gpu TP1 decode"));
  EXPECT_THAT(text, HasSubstr("4 × gpu TP1 mixed, chunks of 512"));
  EXPECT_THAT(text, HasSubstr("split serves 2 times what the best mixed workers do"));
  EXPECT_THAT(text, HasSubstr("derived, not measured"));
  plan_.split.reset();
  EXPECT_THAT(plan_table(head_, plan_), HasSubstr("* mixed"));
  plan_.mixed.reset();
  EXPECT_THAT(plan_table(head_, plan_), HasSubstr("no placement meets the targets"));
}

TEST_F(PlanReport, JsonHasAllOfIt) {
  const auto all = boost::json::parse(plan_json(head_, plan_)).as_object();
  EXPECT_EQ(all.at("gpus").to_number<int>(), 4);
  EXPECT_TRUE(all.at("budget").is_null());
  EXPECT_DOUBLE_EQ(all.at("impossible_share").as_double(), 0.015);
  const auto& split = all.at("split").as_object();
  EXPECT_EQ(split.at("prefill").at("worker").as_string(), "gpu TP2");
  EXPECT_EQ(split.at("decode").at("count").to_number<int>(), 2);
  EXPECT_TRUE(split.at("mixed").is_null());
  EXPECT_DOUBLE_EQ(split.at("goodput_per_gpu").as_double(), 25);
  EXPECT_EQ(split.at("met_of_other_requests").as_array().size(), 3u);
  EXPECT_EQ(all.at("alone").as_array().size(), 1u);
}

TEST_F(PlanReport, FlagsMakeTheSame) {
  EXPECT_EQ(up_flags(table_, layout_),
            "--prefill 1 --prefill-tensor-parallel 2 --decode 2 --decode-tensor-parallel 1 "
            "--block-tokens 64 --chunk-tokens 2048 --max-sequences 256");
  EXPECT_EQ(up_flags(table_, plan_.mixed->layout),
            "--mixed 4 --tensor-parallel 1 --block-tokens 64 --chunk-tokens 512 --max-sequences "
            "256");
  EXPECT_EQ(worker_flags(table_, layout_, layout_.prefill, "prefill"),
            "--role prefill --tensor-parallel 2 --block-tokens 64 --chunk-tokens 2048 "
            "--max-sequences 256");
}

}  // namespace
}  // namespace baton::sim
