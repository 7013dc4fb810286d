#include "tests/ops/cuda/device_cache.h"

// With `deterministic`, a row has the same bits however its prompt was cut and whoever stands
// beside it; and what attention_partials gives merges to attention.
namespace baton::ops {
namespace {

class CudaSameBits : public OnGpu, public testing::WithParamInterface<CacheShape> {
 protected:
  // The rows of a batch of one sequence, computed in the given chunks.
  MatrixH in_chunks(const Batch& batch, const device::Buffer& memory, const DeviceH& q,
                    const std::vector<uint32_t>& chunks) {
    const DeviceH out(*this, batch.q->rows, batch.q->cols);
    uint32_t position = 0;
    for (const uint32_t rows : chunks) {
      const DeviceSequences part(*this, {{0, rows, position, batch.cache.table(0)}},
                                 batch.shape.block_tokens);
      deterministic_.attention(
          *stream_, batch.args(batch.kv_in(memory), q.tensor().slice_rows(position, rows),
                               part.get(), out.tensor().slice_rows(position, rows)));
      stream_->synchronize();  // `part` goes
      position += rows;
    }
    EXPECT_EQ(position, batch.q->rows);
    return out.get();
  }

  // All rows of a batch at once; planned for so many tokens, if not 0.
  MatrixH together(const Batch& batch, const device::Buffer& memory, const DeviceH& q,
                   uint32_t max_tokens = 0) {
    const DeviceH out(*this, batch.q->rows, batch.q->cols);
    const DeviceSequences sequences(*this, batch.rows, batch.shape.block_tokens, max_tokens);
    deterministic_.attention(
        *stream_, batch.args(batch.kv_in(memory), q.tensor(), sequences.get(), out.tensor()));
    return out.get();
  }
  // Each alone.
  MatrixH alone(const Batch& batch, const device::Buffer& memory, const DeviceH& q) {
    const DeviceH out(*this, batch.q->rows, batch.q->cols);
    for (const SequenceRows& s : batch.rows) {
      for (uint32_t r = 0; r < s.num_rows; ++r) {
        const DeviceSequences row(*this, {{s.first_row + r, 1, s.position + r, s.block_table}},
                                  batch.shape.block_tokens);
        deterministic_.attention(
            *stream_, batch.args(batch.kv_in(memory), q.tensor(), row.get(), out.tensor()));
        stream_->synchronize();
      }
    }
    return out.get();
  }
};

// Records of head_dim outputs, a maximum and a sum. A backend may divide by another maximum than
// the exact one, so what is compared is what follows from them.
void check_records(const MatrixF& got, const MatrixF& expected, uint32_t head_dim,
                   const std::string& what) {
  const int64_t record = head_dim + 2, count = got.rows * got.cols / record;
  MatrixF a(count, head_dim), b(count, head_dim);
  for (int64_t i = 0; i < count; ++i) {
    const float *x = got.data.data() + i * record, *y = expected.data.data() + i * record;
    const float x_sum = x[head_dim + 1], y_sum = y[head_dim + 1];
    ASSERT_EQ(x_sum == 0, y_sum == 0) << what << ": whether record " << i << " is empty";
    if (y_sum == 0) continue;
    ASSERT_NEAR(x[head_dim] + std::log(x_sum), y[head_dim] + std::log(y_sum), 2e-2) << what;
    for (uint32_t d = 0; d < head_dim; ++d) {
      a.at(i, d) = x[d] / x_sum;
      b.at(i, d) = y[d] / y_sum;
    }
  }
  expect_near(a, b, kAttentionBound, what);
}

std::vector<uint32_t> equal_chunks(uint32_t length, uint32_t size) {
  std::vector<uint32_t> chunks;
  for (uint32_t at = 0; at < length; at += size) chunks.push_back(std::min(size, length - at));
  return chunks;
}

TEST_P(CudaSameBits, HoweverAPromptIsCut) {
  Random random(6);
  const uint32_t length = 600;
  const Batch batch(random, GetParam(), {length}, {length});
  const device::Buffer memory = upload(batch.cache_memory());
  const DeviceH q(*this, *batch.q);
  const MatrixH whole = in_chunks(batch, memory, q, {length});
  for (const uint32_t size : {1u, 5u, 16u, 64u, 250u, 256u}) {
    ASSERT_NO_FATAL_FAILURE(
        expect_same_bits(in_chunks(batch, memory, q, equal_chunks(length, size)), whole,
                         "chunks of " + std::to_string(size)));
  }
  std::vector<uint32_t> odd;
  for (uint32_t left = length; left > 0; left -= odd.back()) {
    odd.push_back(static_cast<uint32_t>(pick(random, 1, std::min(left, 90u))));
  }
  expect_same_bits(in_chunks(batch, memory, q, odd), whole, "odd chunks");
}

TEST_P(CudaSameBits, WhoeverStandsBeside) {
  Random random(7);
  for (int trial = 0; trial < 4; ++trial) {
    std::vector<uint32_t> lengths(static_cast<size_t>(pick(random, 2, 9))), rows;
    for (uint32_t& n : lengths) {
      n = static_cast<uint32_t>(pick(random, 1, 1200));
      const auto most = static_cast<int64_t>(std::min(n, 40u));
      rows.push_back(static_cast<uint32_t>(pick(random, 0, 1) == 0 ? 1 : pick(random, 1, most)));
    }
    const Batch batch(random, GetParam(), lengths, rows);
    const device::Buffer memory = upload(batch.cache_memory());
    const DeviceH q(*this, *batch.q);
    ASSERT_NO_FATAL_FAILURE(expect_same_bits(together(batch, memory, q), alone(batch, memory, q),
                                             "batch " + std::to_string(trial)));
  }
}

// Around the borders of what is merged first: many rows at a time, and each alone.
TEST_P(CudaSameBits, AcrossGroupsOfTiles) {
  Random random(10);
  const Batch batch(random, GetParam(), {1023, 1024, 1025, 1034, 2049, 2570},
                    {17, 1, 1, 20, 18, 1});
  const device::Buffer memory = upload(batch.cache_memory());
  const DeviceH q(*this, *batch.q);
  expect_same_bits(together(batch, memory, q), alone(batch, memory, q), "groups");
}

// Planned for long contexts all but the last few sequences are computed in whole groups, and each
// alone in tiles.
TEST_P(CudaSameBits, InGroupsOrInTiles) {
  Random random(11);
  const std::vector<uint32_t> lengths = {1025, 1023, 2049, 1024, 1,    256,  2500,
                                         257,  1300, 64,   800,  1025, 2100, 1024};
  const Batch batch(random, GetParam(), lengths, std::vector<uint32_t>(lengths.size(), 1));
  const device::Buffer memory = upload(batch.cache_memory());
  const DeviceH q(*this, *batch.q);
  const MatrixH each = alone(batch, memory, q);
  expect_same_bits(together(batch, memory, q), each, "as they are");
  expect_same_bits(together(batch, memory, q, 1 << 17), each, "planned for 131072 tokens");
}

TEST_P(CudaSameBits, WhateverTheBlockSize) {
  Random random(8);
  const uint32_t length = 700;
  CacheShape shape = GetParam();
  MatrixH expected(0, 0), all_q(0, 0);
  for (const uint32_t block_tokens : {16u, 64u, 256u}) {
    shape.block_tokens = block_tokens;
    Random order(block_tokens), content(9);
    Batch batch(order, shape, {length}, {33});
    batch.cache.fill(content, 0, length);
    if (expected.rows == 0) all_q = *batch.q;
    *batch.q = all_q;
    const device::Buffer memory = upload(batch.cache_memory());
    const DeviceH q(*this, *batch.q);
    const MatrixH out = together(batch, memory, q);
    if (expected.rows == 0) expected = out;
    expect_same_bits(out, expected, "blocks of " + std::to_string(block_tokens));
  }
}

// Tiles 0-1, 2-4 and 5-8, as three workers would have them.
TEST_P(CudaSameBits, MergedPartialsAreAttention) {
  Random random(9);
  const CacheShape shape = GetParam();
  const Batch batch(random, shape, {2100, 700, 90, 30}, {3, 300, 1, 0});
  const device::Buffer memory = upload(batch.cache_memory());
  const DeviceH q(*this, *batch.q), whole(*this, batch.q->rows, batch.q->cols);
  const DeviceSequences sequences(*this, batch.rows, shape.block_tokens);
  const AttentionArgs args =
      batch.args(batch.kv_in(memory), q.tensor(), sequences.get(), whole.tensor());
  MatrixF wide = to_f32(*batch.q), cpu_out(wide.rows, wide.cols);
  const AttentionArgs cpu_args =
      batch.args(batch.cpu_kv(), wide.tensor(), Sequences::on_host(batch.rows), cpu_out.tensor());
  cpu_ops_.attention(*cpu_.stream, cpu_args);
  for (const Ops* ops : {&fast_, &deterministic_}) {
    const uint32_t bounds[] = {0, 2, 5, 9};
    std::vector<DeviceF> memories;
    std::vector<AttentionPartials> parts;
    for (int i = 0; i < 3; ++i) {
      const uint32_t tiles = bounds[i + 1] - bounds[i];
      const int64_t width = int64_t{shape.heads} * tiles * (shape.head_dim + 2);
      memories.emplace_back(*this, batch.total, width);
      parts.push_back({memories.back().tensor(), bounds[i], tiles});
      ops->attention_partials(*stream_, args, parts.back());

      MatrixF records(batch.total, width);
      const MatrixF got = memories.back().get();
      cpu_ops_.attention_partials(*cpu_.stream, cpu_args, {records.tensor(), bounds[i], tiles});
      check_records(got, records, shape.head_dim, ops->numerics + " part " + std::to_string(i));
    }
    const DeviceH merged(*this, batch.q->rows, batch.q->cols);
    ops->merge_partials(*stream_, parts, shape.heads, merged.tensor());
    const MatrixH got = merged.get();
    expect_near(got, cpu_out, kAttentionBound, ops->numerics);
    if (ops != &deterministic_) continue;
    ops->attention(*stream_, args);
    expect_same_bits(got, whole.get(), "merged");
    // With so many parts that several launches merge them, the first within a group.
    parts.insert(parts.begin() + 1, 70, {parts[0].records, bounds[1], 0});
    const DeviceH again(*this, batch.q->rows, batch.q->cols);
    ops->merge_partials(*stream_, parts, shape.heads, again.tensor());
    expect_same_bits(again.get(), got, "of many parts");
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaSameBits,
                         testing::Values(CacheShape{32, 8, 128, 16, half_type()},
                                         CacheShape{8, 1, 128, 64, half_type()},
                                         CacheShape{9, 3, 64, 32, half_type()},
                                         CacheShape{4, 4, 80, 16, half_type()},
                                         CacheShape{2, 1, 256, 16, half_type()},
                                         CacheShape{6, 2, 32, 128, half_type()}));

}  // namespace
}  // namespace baton::ops
