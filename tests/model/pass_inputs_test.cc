#include "common/model/pass_inputs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <random>
#include <utility>
#include <vector>

#include "common/device/cpu/cpu_device.h"
#include "tests/fakes/fake_gpu.h"

namespace baton::model {
namespace {

using testing::Each;
using testing::ElementsAreArray;

constexpr uint32_t kBlockTokens = 16;

// A batch with all it refers to.
struct Batch {
  std::vector<TokenId> tokens;
  std::vector<uint32_t> positions;
  std::vector<std::vector<BlockId>> tables;
  std::vector<ops::SequenceRows> sequences;  // without tables
  std::vector<OutputRows> outputs;

  void add(uint32_t position, uint32_t rows, std::mt19937& random) {
    sequences.push_back({static_cast<uint32_t>(tokens.size()), rows, position, nullptr});
    auto& table = tables.emplace_back();
    for (uint32_t t = 0; t < position + rows; t += kBlockTokens) {
      table.push_back(BlockId{static_cast<uint32_t>(random() % 1000)});
    }
    for (uint32_t i = 0; i < rows; ++i) {
      tokens.push_back(static_cast<TokenId>(random() % 300) - 5);
      positions.push_back(position + i);
    }
  }
  // One row a sequence, each an output.
  static Batch decode(uint32_t rows, uint32_t position, std::mt19937& random) {
    Batch batch;
    for (uint32_t i = 0; i < rows; ++i) {
      batch.add(position + i, 1, random);
      batch.outputs.push_back({i, 0, 1});
    }
    return batch;
  }
  ForwardBatch view() {
    for (size_t i = 0; i < tables.size(); ++i) sequences[i].block_table = tables[i].data();
    return {tokens, positions, sequences, outputs};
  }
};

class PassInputsTest : public testing::TestWithParam<bool> {
 protected:
  static constexpr PassInputs::Limits kLimits = {
      .rows = 64, .sequences = 48, .outputs = 72, .output_ranges = 56, .max_context = 1000};

  ~PassInputsTest() override { stream->synchronize(); }

  template <class T>
  std::vector<std::remove_const_t<T>> read(std::span<T> on_device) {
    std::vector<std::remove_const_t<T>> values(on_device.size());
    device().copy(*stream, values.data(), on_device.data(), on_device.size_bytes());
    stream->synchronize();
    return values;
  }

  // That the sequences stand on both sides as `given` says, with their tables.
  void expect_sequences(const ops::Sequences& got, const std::vector<ops::SequenceRows>& given) {
    ASSERT_GE(got.host.size(), given.size());
    const auto on_device = read(std::span(got.device, got.host.size()));
    for (size_t i = 0; i < got.host.size(); ++i) {
      const ops::SequenceRows &host = got.host[i], &d = on_device[i];
      EXPECT_EQ(host.first_row, d.first_row);
      EXPECT_EQ(host.num_rows, d.num_rows);
      EXPECT_EQ(host.position, d.position);
      EXPECT_EQ(host.block_table, d.block_table) << "both are addresses of the device's";
      if (i >= given.size()) continue;
      const ops::SequenceRows& want = given[i];
      EXPECT_EQ(d.first_row, want.first_row);
      EXPECT_EQ(d.num_rows, want.num_rows);
      EXPECT_EQ(d.position, want.position);
      const size_t blocks = (want.position + want.num_rows + kBlockTokens - 1) / kBlockTokens;
      EXPECT_THAT(read(std::span(d.block_table, blocks)),
                  ElementsAreArray(want.block_table, blocks));
    }
  }

  device::Device& device() { return GetParam() ? static_cast<device::Device&>(gpu) : *cpu; }

  std::mt19937 random{7};
  device::FakeGpu gpu;
  std::unique_ptr<device::Device> cpu = device::make_cpu_device(1);
  std::unique_ptr<device::Stream> stream = device().make_stream();
  PassInputs inputs = PassInputs::create(device(), kLimits).value();
};

TEST_P(PassInputsTest, TheDeviceGetsTheBatch) {
  gpu.set_jitter(std::chrono::microseconds(100));
  const TokenId drawn[1] = {};
  for (int round = 0; round < 100; ++round) {
    Batch batch;
    std::vector<uint32_t> out_rows;
    std::vector<ops::SequenceRows> out_sequences;
    for (uint32_t left = 1 + random() % 8; left > 0; --left) {
      batch.add(random() % 900, random() % 9, random);
    }
    ForwardBatch view = batch.view();
    view.drawn = drawn;
    for (uint32_t left = random() % 8; left > 0; --left) {
      const auto s = static_cast<uint32_t>(random() % batch.sequences.size());
      const ops::SequenceRows& of = batch.sequences[s];
      const auto first = static_cast<uint32_t>(random() % (of.num_rows + 1));
      const auto count = static_cast<uint32_t>(random() % (of.num_rows - first + 1));
      batch.outputs.push_back({s, first, count});
      out_sequences.push_back(
          {static_cast<uint32_t>(out_rows.size()), count, of.position + first, of.block_table});
      for (uint32_t i = 0; i < count; ++i) out_rows.push_back(of.first_row + first + i);
    }
    view.outputs = batch.outputs;
    const Pass pass = inputs.upload(*stream, view, kBlockTokens);
    const auto tokens = std::exchange(batch.tokens, {});  // is the caller's again
    EXPECT_EQ(read(pass.tokens), tokens);
    EXPECT_EQ(read(pass.positions), batch.positions);
    EXPECT_EQ(read(pass.out_rows), out_rows);
    ASSERT_EQ(pass.sequences.host.size(), batch.sequences.size());
    ASSERT_EQ(pass.out_sequences.host.size(), out_sequences.size());
    expect_sequences(pass.sequences, batch.sequences);
    expect_sequences(pass.out_sequences, out_sequences);
    uint32_t longest = 0;
    for (const auto& s : batch.sequences) longest = std::max(longest, s.position + s.num_rows);
    EXPECT_EQ(pass.sequences.max_tokens, longest);
    EXPECT_EQ(pass.out_sequences.max_tokens, longest);
    EXPECT_EQ(pass.drawn, drawn);
  }
}

TEST_P(PassInputsTest, KnowsWhereOutputsAreAllRowsInOrder) {
  const auto are_rows = [&](const std::vector<OutputRows>& outputs) {
    Batch batch;
    batch.add(40, 1, random);
    batch.add(0, 3, random);
    batch.outputs = outputs;
    return inputs.upload(*stream, batch.view(), kBlockTokens).outputs_are_rows;
  };
  EXPECT_TRUE(are_rows({{0, 0, 1}, {1, 0, 3}}));
  EXPECT_FALSE(are_rows({{0, 0, 1}, {1, 2, 1}}));
  EXPECT_FALSE(are_rows({{1, 0, 3}, {0, 0, 1}}));
  EXPECT_FALSE(are_rows({{0, 0, 1}, {1, 0, 1}, {1, 1, 2}}));
  EXPECT_FALSE(are_rows({}));
}

// A recorded pass finds each part where it found it in the batch it was recorded with.
TEST_P(PassInputsTest, AShapeStandsInOnePlaceWhateverIsInIt) {
  Batch full = Batch::decode(40, 300, random);
  const Pass first = inputs.upload(*stream, full.view(), kBlockTokens, 40, 512);
  for (const uint32_t rows : {40u, 33u, 1u, 8u}) {
    Batch batch = Batch::decode(rows, 100 * rows % 470, random);
    const Pass pass = inputs.upload(*stream, batch.view(), kBlockTokens, 40, 512);
    EXPECT_TRUE(pass.outputs_are_rows);
    EXPECT_EQ(pass.tokens.data(), first.tokens.data());
    EXPECT_EQ(pass.positions.data(), first.positions.data());
    EXPECT_EQ(pass.out_rows.data(), first.out_rows.data());
    EXPECT_EQ(pass.sequences.device, first.sequences.device);
    EXPECT_EQ(pass.out_sequences.device, first.out_sequences.device);
    EXPECT_EQ(pass.sequences.max_tokens, 512u);
    ASSERT_EQ(pass.tokens.size(), 40u);
    ASSERT_EQ(pass.positions.size(), 40u);
    ASSERT_EQ(pass.sequences.host.size(), 40u);
    EXPECT_EQ(pass.out_rows.size(), rows);
    auto tokens = batch.tokens;
    tokens.resize(40);
    EXPECT_EQ(read(pass.tokens), tokens);
    expect_sequences(pass.sequences, batch.sequences);
    for (uint32_t i = rows; i < 40; ++i) {
      EXPECT_EQ(pass.sequences.host[i].first_row, i);
      EXPECT_EQ(pass.sequences.host[i].num_rows, 0u);
    }
    const auto positions = read(pass.positions);
    EXPECT_THAT(std::span(positions).subspan(rows), Each(0u));
  }
}

TEST_P(PassInputsTest, MaxTokensIsNeverBelowTheLongest) {
  Batch batch = Batch::decode(3, 700, random);
  const auto max_tokens = [&](uint32_t rows, uint32_t tokens) {
    return inputs.upload(*stream, batch.view(), kBlockTokens, rows, tokens).sequences.max_tokens;
  };
  EXPECT_EQ(max_tokens(0, 0), 703u);
  EXPECT_EQ(max_tokens(4, 256), 703u);
  EXPECT_EQ(max_tokens(4, 1024), 1024u);
  EXPECT_EQ(max_tokens(3, 1024), 1024u);
}

TEST_P(PassInputsTest, HoldsTheMostThatItWasMadeFor) {
  Batch batch;
  for (uint32_t s = 0; s < kLimits.sequences; ++s) {
    const uint32_t rows = s < 16 ? 2 : 1;
    batch.add(kLimits.max_context - rows, rows, random);
    batch.outputs.push_back({s, 0, rows});
  }
  for (uint32_t o = 0; o < 8; ++o) batch.outputs.push_back({o, 1, 1});
  const Pass pass = inputs.upload(*stream, batch.view(), kBlockTokens);
  EXPECT_EQ(pass.out_rows.size(), kLimits.outputs);
  EXPECT_EQ(read(pass.tokens), batch.tokens);
  expect_sequences(pass.sequences, batch.sequences);
}

INSTANTIATE_TEST_SUITE_P(Devices, PassInputsTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "FakeGpu" : "Cpu"; });

constexpr PassInputs::Limits kFour = {
    .rows = 4, .sequences = 4, .outputs = 4, .output_ranges = 4, .max_context = 100};

// The host's side of a batch is written again only when the device has it.
TEST(PassInputs, TheHostWaitsWhereItIsTooFarAhead) {
  std::mt19937 random(8);
  device::FakeGpu gpu;
  const auto stream = gpu.make_stream();
  PassInputs inputs =
      PassInputs::create(
          gpu, {.rows = 4, .sequences = 4, .outputs = 4, .output_ranges = 4, .max_context = 100})
          .value();
  std::vector<Batch> batches;
  for (uint32_t i = 0; i < 8; ++i) batches.push_back(Batch::decode(4, 10 * i, random));
  std::vector<std::vector<TokenId>> seen(batches.size(), std::vector<TokenId>(4));
  const auto upload = [&](size_t i) {
    const Pass pass = inputs.upload(*stream, batches[i].view(), kBlockTokens);
    gpu.copy(*stream, seen[i].data(), pass.tokens.data(), pass.tokens.size_bytes());
  };
  gpu.hold();
  upload(0);  // two batches in flight, and one that is being put together
  upload(1);
  upload(2);
  auto rest = std::async(std::launch::async, [&] {
    for (size_t i = 3; i < batches.size(); ++i) upload(i);
  });
  EXPECT_EQ(rest.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  gpu.let_go();
  rest.get();
  stream->synchronize();
  for (size_t i = 0; i < batches.size(); ++i) EXPECT_EQ(seen[i], batches[i].tokens) << i;
}

// Whichever part of an upload is late.
TEST(PassInputs, TheHostMayBeAnyTimeAhead) {
  std::mt19937 random(9);
  device::FakeGpu gpu;
  gpu.set_jitter(std::chrono::microseconds(2000));
  const auto stream = gpu.make_stream();
  PassInputs inputs = PassInputs::create(gpu, kFour).value();
  std::vector<Batch> batches;
  for (uint32_t i = 0; i < 100; ++i) batches.push_back(Batch::decode(4, i % 20, random));
  std::vector<std::vector<TokenId>> seen(batches.size(), std::vector<TokenId>(4));
  for (size_t i = 0; i < batches.size(); ++i) {
    const Pass pass = inputs.upload(*stream, batches[i].view(), kBlockTokens);
    gpu.copy(*stream, seen[i].data(), pass.tokens.data(), pass.tokens.size_bytes());
  }
  stream->synchronize();
  for (size_t i = 0; i < batches.size(); ++i) EXPECT_EQ(seen[i], batches[i].tokens) << i;
}

}  // namespace
}  // namespace baton::model
