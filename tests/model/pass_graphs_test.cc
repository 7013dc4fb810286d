#include "common/model/pass_graphs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <vector>

#include "tests/fakes/fake_gpu.h"
#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

using device::FakeGpu;

PassGraphs::Shape shape(uint32_t rows, uint32_t max_rows, uint32_t longest = 1) {
  const std::vector<TokenId> tokens(rows);
  std::vector<ops::SequenceRows> sequences(rows);
  for (uint32_t i = 0; i < rows; ++i) sequences[i] = {i, 1, 0, nullptr};
  sequences[rows / 2].position = longest - 1;
  return PassGraphs::shape_of({.tokens = tokens, .sequences = sequences}, max_rows);
}

TEST(PassGraphs, RowsGoUpToTheNextBucket) {
  struct Case {
    uint32_t rows, max_rows, expected;
  };
  for (const Case& c :
       {Case{1, 512, 1},     {2, 512, 2},     {3, 512, 4},     {5, 512, 8},     {8, 512, 8},
        Case{9, 512, 16},    {17, 512, 24},   {64, 512, 64},   {65, 512, 80},   {113, 512, 128},
        Case{129, 512, 160}, {256, 512, 256}, {257, 512, 320}, {449, 512, 512}, {512, 512, 512},
        Case{5, 6, 6},       {6, 6, 6},       {7, 6, 7},       {9, 12, 12},     {500, 500, 500}}) {
    EXPECT_EQ(shape(c.rows, c.max_rows).rows, c.expected) << c.rows << " of " << c.max_rows;
  }
}

TEST(PassGraphs, BucketsWasteLittleAndAreFew) {
  for (const uint32_t max_rows : {1u, 7u, 16u, 100u, 500u, 512u}) {
    std::set<uint32_t> buckets;
    for (uint32_t rows = 1; rows <= PassGraphs::kMaxRows; ++rows) {
      const uint32_t filled = shape(rows, max_rows).rows;
      ASSERT_GE(filled, rows);
      ASSERT_LE(filled, std::max(rows, max_rows));
      ASSERT_LE(filled - rows, std::max(7u, rows / 4));
      if (rows <= max_rows) buckets.insert(filled);
    }
    EXPECT_LE(buckets.size(), 24u);
  }
}

TEST(PassGraphs, TokensGoUpToTheNextPowerOfTwo) {
  for (const auto& [longest, expected] : {std::pair{1u, 256u},
                                          {255u, 256u},
                                          {256u, 256u},
                                          {257u, 512u},
                                          {4096u, 4096u},
                                          {4097u, 8192u}}) {
    EXPECT_EQ(shape(3, 8, longest).max_tokens, expected) << longest;
  }
}

TEST(PassGraphs, LikelyShapesAreThoseOfBatchesShortAndSmallOnesFirst) {
  using Shapes = std::vector<PassGraphs::Shape>;
  EXPECT_EQ(PassGraphs::likely_shapes(5, 700, 512, true), (Shapes{{1, 256, true},
                                                                  {2, 256, true},
                                                                  {4, 256, true},
                                                                  {8, 256, true},
                                                                  {1, 512, true},
                                                                  {2, 512, true},
                                                                  {4, 512, true},
                                                                  {8, 512, true},
                                                                  {1, 1024, true},
                                                                  {2, 1024, true},
                                                                  {4, 1024, true},
                                                                  {8, 1024, true}}));
  EXPECT_EQ(PassGraphs::likely_shapes(3, 256, 3, false),
            (Shapes{{1, 256, false}, {2, 256, false}, {3, 256, false}}));
  EXPECT_EQ(PassGraphs::likely_shapes(1, 1, 8, false), (Shapes{{1, 256, false}}));
  // Whatever batch comes, its shape is there.
  const Shapes all = PassGraphs::likely_shapes(50, 2000, 60, false);
  for (uint32_t rows = 1; rows <= 50; ++rows) {
    for (const uint32_t longest : {1u, 256u, 257u, 1999u, 2000u}) {
      EXPECT_EQ(std::count(all.begin(), all.end(), shape(rows, 60, longest)), 1)
          << rows << " rows, " << longest;
    }
  }
}

TEST(PassGraphs, LikelyShapesAreFewAndSeeNotTooMuch) {
  const auto all = PassGraphs::likely_shapes(5000, 1u << 31, 5000, true);
  EXPECT_EQ(all.size(), PassGraphs::kMostLikely);
  for (const PassGraphs::Shape& s : all) {
    EXPECT_LE(s.rows, PassGraphs::kMaxRows);
    EXPECT_LE(s.rows * uint64_t{s.max_tokens}, PassGraphs::kMostLikelyTokens);
  }
  EXPECT_LT(PassGraphs::likely_shapes(16, 1u << 31, 16, true).size(), PassGraphs::kMostLikely);
}

TEST(PassGraphs, RecordsAShapeWhenItComesAgain) {
  FakeGpu gpu;
  const auto stream = gpu.make_stream();
  PassGraphs graphs;
  int enqueued = 0;
  const auto run = [&](PassGraphs::Shape s) { graphs.run(*stream, s, [&] { ++enqueued; }); };
  run({4, 256});
  EXPECT_EQ(enqueued, 1);
  EXPECT_EQ(gpu.counts().launches, 0u);
  for (uint64_t i = 1; i <= 3; ++i) {
    run({4, 256});
    EXPECT_EQ(enqueued, 2);
    EXPECT_EQ(gpu.counts().captures, 1u);
    EXPECT_EQ(gpu.counts().launches, i);
  }
  run({4, 512});
  run({8, 256});
  EXPECT_EQ(enqueued, 4);
  EXPECT_EQ(gpu.counts().launches, 3u);
  stream->synchronize();
}

TEST(PassGraphs, RunsAsItIsWhatCannotBeRecorded) {
  FakeGpu gpu;
  gpu.set_captures_fail(true);
  const auto stream = gpu.make_stream();
  std::vector<int> from = {0}, to = {0};
  PassGraphs graphs;
  for (int i = 1; i <= 4; ++i) {
    from[0] = i;
    const auto locked = gpu.lock_host(from.data(), sizeof(int)).value();
    const auto other = gpu.lock_host(to.data(), sizeof(int)).value();
    graphs.run(*stream, {1, 256}, [&] { gpu.copy(*stream, to.data(), from.data(), sizeof(int)); });
    stream->synchronize();
    EXPECT_EQ(to[0], i);
  }
  EXPECT_EQ(gpu.counts().launches, 0u);
}

// A model on the fake GPU and on the CPU.
class RecordedPasses : public testing::Test {
 protected:
  static constexpr uint32_t kSequences = 12, kTokens = 40;

  static Backend fake_backend() { return {std::make_unique<FakeGpu>(), ops::fake_gpu_ops()}; }

  RecordedPasses() {
    std::vector<TokenId> tokens(kTokens);
    for (uint32_t i = 0; i < kTokens; ++i) tokens[i] = static_cast<TokenId>(i * 17 % 300);
    for (ModelUnderTest* m : {&cpu, &fake}) {
      for (uint32_t s = 0; s < kSequences; ++s) {
        m->run(tokens, 0, table(s), kTokens, [](uint32_t, std::span<const float>) {});
      }
    }
  }
  static std::vector<BlockId> table(uint32_t sequence) {
    return ModelUnderTest::blocks(3 * sequence, 3);
  }

  // Logits of one pass of rows at `position`, one a sequence.
  // `drawn`: where the device has the tokens; else the host gives them.
  static std::vector<float> logits(ModelUnderTest& m, uint32_t rows, uint32_t position,
                                   const std::vector<OutputRows>& outputs,
                                   const TokenId* drawn = nullptr) {
    std::vector<TokenId> tokens;
    std::vector<std::vector<BlockId>> tables;
    std::vector<ops::SequenceRows> sequences;
    for (uint32_t i = 0; i < rows; ++i) {
      tokens.push_back(static_cast<TokenId>((i * 31 + position * 7) % 300));
      tables.push_back(table(i));
      sequences.push_back({i, 1, position, tables.back().data()});
    }
    const std::vector<uint32_t> positions(rows, position);
    if (drawn != nullptr) {
      m.device().copy(m.stream(), const_cast<TokenId*>(drawn), tokens.data(),
                      rows * sizeof(TokenId));
      m.stream().synchronize();
      for (uint32_t i = 0; i < rows; ++i) tokens[i] = -1 - static_cast<TokenId>(i);
    }
    m.model().forward(m.stream(), {tokens, positions, sequences, outputs, drawn}, m.cache(),
                      nullptr);
    const auto count = static_cast<uint32_t>(outputs.size());
    const device::Tensor got = m.model().logits(m.stream(), 0, count);
    std::vector<float> values(static_cast<size_t>(got.rows * got.cols));
    m.device().copy(m.stream(), values.data(), got.data, values.size() * sizeof(float));
    m.stream().synchronize();
    return values;
  }
  static std::vector<OutputRows> all(uint32_t rows) {
    std::vector<OutputRows> outputs;
    for (uint32_t i = 0; i < rows; ++i) outputs.push_back({i, 0, 1});
    return outputs;
  }
  void expect_same(uint32_t rows, uint32_t position, const std::vector<OutputRows>& outputs) {
    const auto want = logits(cpu, rows, position, outputs);
    const auto got = logits(fake, rows, position, outputs);
    ASSERT_EQ(got.size(), want.size());
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0)
        << rows << " rows at " << position;
  }

  ModelUnderTest cpu{data_dir() / "llama3",
                     {.max_sequences = kSequences, .backend = [] { return cpu_backend(2); }}};
  ModelUnderTest fake{data_dir() / "llama3",
                      {.max_sequences = kSequences, .backend = fake_backend}};
  FakeGpu& gpu = static_cast<FakeGpu&>(fake.device());
};

TEST_F(RecordedPasses, GiveTheSameForAnyBatchOfTheirShape) {
  uint32_t position = 0;
  for (const uint32_t rows : {5u, 8u, 6u, 7u, 1u, 1u, 12u, 9u, 5u, 8u, 10u}) {
    expect_same(rows, position, all(rows));
    if (position++ == 5) position = 30;  // over a block's end
  }
  EXPECT_EQ(gpu.counts().captures, 3u);  // of 8, 1 and 12 rows
  EXPECT_EQ(gpu.counts().launches, 8u);
}

// The first batch that comes is launched; what was warmed up with had no sequence to read or write.
TEST_F(RecordedPasses, AreThereWhenTheyWereWarmedUp) {
  for (const uint32_t rows : {1u, 8u, 12u}) {
    fake.model().warm_up(fake.stream(), fake.cache(), nullptr, {rows, 256, false});
  }
  EXPECT_EQ(gpu.counts().captures, 3u);
  EXPECT_EQ(gpu.counts().launches, 3u);
  uint32_t position = 0;
  for (const uint32_t rows : {5u, 8u, 12u, 1u}) expect_same(rows, position++, all(rows));
  EXPECT_EQ(gpu.counts().captures, 3u);
  EXPECT_EQ(gpu.counts().launches, 7u);
}

// As many outputs as rows, but not the rows themselves: choices of one prompt's last row.
TEST_F(RecordedPasses, OtherOutputsAreNotRecorded) {
  for (uint32_t position = 0; position < 4; ++position) {
    expect_same(3, position, {{0, 0, 1}, {0, 0, 1}, {2, 0, 1}});
  }
  EXPECT_EQ(gpu.counts().captures, 0u);
}

TEST_F(RecordedPasses, FindTheTokensThatTheDeviceDrew) {
  const device::Buffer memory = gpu.allocate(kSequences * sizeof(TokenId)).value();
  const auto* drawn = reinterpret_cast<const TokenId*>(memory.data());
  for (uint32_t position = 0; position < 9; ++position) {
    // The same rows with tokens from the host, and from the device.
    const auto want = logits(cpu, 7, position, all(7));
    const auto got = logits(fake, 7, position, all(7), position % 3 == 0 ? nullptr : drawn);
    EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size() * sizeof(float)), 0) << position;
  }
  EXPECT_EQ(gpu.counts().captures, 2u);
}

TEST_F(RecordedPasses, AreOfTheSameWeights) {
  EXPECT_EQ(fake.model().model_key().weights, cpu.model().model_key().weights);
  EXPECT_EQ(fake.model().numerics(), cpu.model().numerics());
}

TEST_F(RecordedPasses, PrefillIsNotRecorded) {
  EXPECT_EQ(gpu.counts().captures, 0u);  // 12 prompts have been computed
}

}  // namespace
}  // namespace baton::model
