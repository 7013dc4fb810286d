#include "tests/ops/cuda/device_cache.h"

namespace baton::ops {
namespace {

class CudaAttention : public OnGpu, public testing::WithParamInterface<CacheShape> {
 protected:
  MatrixF reference(const Batch& batch) {
    MatrixF wide = to_f32(*batch.q), out(wide.rows, wide.cols);
    cpu_ops_.attention(*cpu_.stream, batch.args(batch.cpu_kv(), wide.tensor(),
                                                Sequences::on_host(batch.rows), out.tensor()));
    return rows_of(out, 0, batch.total);
  }

  // Both tables' attention of a batch against the CPU's. `apart`: elements between rows.
  void compare(const Batch& batch, const std::string& what, int64_t apart = 0) {
    const MatrixF expected = reference(batch);
    const device::Buffer memory = upload(batch.cache_memory());
    const int64_t width = batch.q->cols;
    const DeviceH q(*this, *batch.q, width + apart);
    const DeviceSequences sequences(*this, batch.rows, batch.shape.block_tokens);
    for (const Ops* ops : {&fast_, &deterministic_}) {
      const DeviceH out(*this, batch.q->rows, width, width + apart);
      ops->attention(*stream_,
                     batch.args(batch.kv_in(memory), q.tensor(), sequences.get(), out.tensor()));
      expect_near(rows_of(to_f32(out.get()), 0, batch.total), expected, kAttentionBound,
                  ops->numerics + ", " + what);
    }
  }
};

TEST_P(CudaAttention, OfAMixedBatch) {
  Random random(5);
  compare(
      Batch(random, GetParam(), {1, 17, 256, 257, 300, 513, 700, 9}, {1, 17, 1, 2, 70, 513, 1, 0}),
      "mixed");
}

TEST_P(CudaAttention, OfDecodeRows) {
  Random random(6);
  std::vector<uint32_t> lengths;
  for (const uint32_t n : {1, 15, 16, 17, 255, 256, 257, 511, 512, 513, 1023, 1500}) {
    lengths.push_back(n);
  }
  const Batch batch(random, GetParam(), lengths, std::vector<uint32_t>(lengths.size(), 1));
  compare(batch, "decode");
  compare(batch, "decode, rows apart", 8);
}

TEST_P(CudaAttention, OfAWholePrompt) {
  Random random(7);
  for (const uint32_t n : {63u, 64u, 65u, 128u, 333u}) {
    compare(Batch(random, GetParam(), {n}, {n}), "prompt of " + std::to_string(n));
  }
}

TEST_P(CudaAttention, OfChunks) {
  Random random(8);
  // In the middle of tiles and blocks, and at their edges; scores that are far from each other.
  const std::vector<uint32_t> ends = {1000, 512, 530, 257, 1100, 800};
  const std::vector<uint32_t> rows = {128, 256, 19, 256, 77, 2};
  compare(Batch(random, GetParam(), ends, rows, 4.0f), "chunks");
  compare(Batch(random, GetParam(), ends, rows, 0.1f, 5), "chunks and rows of nobody", 16);
}

INSTANTIATE_TEST_SUITE_P(Small, CudaAttention,
                         testing::Values(CacheShape{4, 2, 64, 16, half_type()},
                                         CacheShape{4, 1, 128, 32, half_type()}));
INSTANTIATE_TEST_SUITE_P(
    Models, CudaAttention,
    testing::Values(CacheShape{32, 8, 128, 16, half_type()},
                    CacheShape{32, 8, 128, 64, half_type()},
                    CacheShape{8, 1, 128, 128, half_type()},
                    CacheShape{8, 1, 128, 256, half_type()},
                    CacheShape{64, 8, 128, 32, half_type()}, CacheShape{9, 3, 64, 16, half_type()},
                    CacheShape{14, 2, 64, 64, half_type()}, CacheShape{4, 4, 80, 32, half_type()},
                    CacheShape{2, 1, 256, 16, half_type()}, CacheShape{6, 2, 32, 256, half_type()},
                    CacheShape{16, 1, 128, 16, half_type()}, CacheShape{3, 3, 16, 16, half_type()},
                    CacheShape{2, 1, 512, 32, half_type()}));

class CudaLongAttention : public CudaAttention {};

TEST_P(CudaLongAttention, SplitsOneSequence) {
  Random random(9);
  compare(Batch(random, GetParam(), {6000}, {1}), "one of 6000");
  compare(Batch(random, GetParam(), {4097, 1, 3000}, {1, 1, 1}), "three");
}

TEST_P(CudaLongAttention, OfManySequences) {
  Random random(10);
  std::vector<uint32_t> lengths(70);
  for (uint32_t& n : lengths) n = static_cast<uint32_t>(pick(random, 1, 700));
  compare(Batch(random, GetParam(), lengths, std::vector<uint32_t>(lengths.size(), 1)), "seventy");
}

TEST_P(CudaLongAttention, OfALongPromptsLastChunk) {
  Random random(11);
  compare(Batch(random, GetParam(), {2500}, {300}), "last 300 of 2500");
}

INSTANTIATE_TEST_SUITE_P(Models, CudaLongAttention,
                         testing::Values(CacheShape{32, 8, 128, 16, half_type()},
                                         CacheShape{8, 1, 128, 64, half_type()},
                                         CacheShape{9, 3, 64, 32, half_type()}));

// Scores that grow with the position move the maximum at each tile; equal keys give plain means.
TEST_P(CudaLongAttention, KeepsUpWithAMaximumThatMoves) {
  Random random(12);
  const CacheShape shape = GetParam();
  const uint32_t n = 1300;
  for (const float slope : {0.02f, -0.02f, 0.0f}) {
    Batch batch(random, shape, {n, n}, {200, 1});
    for (uint32_t s = 0; s < 2; ++s) {
      for (uint32_t h = 0; h < shape.kv_heads; ++h) {
        for (uint32_t t = 0; t < n; ++t) {
          for (uint32_t d = 0; d < shape.head_dim; ++d) {
            batch.cache.set(s, 0, h, t, d, slope * static_cast<float>(t));
          }
        }
      }
    }
    for (uint16_t& v : batch.q->data) v = f32_to_half(1.0f);
    compare(batch, "slope " + std::to_string(slope));
  }
}

TEST_P(CudaLongAttention, NaNStaysInItsOwnRow) {
  Random random(13);
  Batch batch(random, GetParam(), {400}, {80});
  const MatrixF expected = reference(batch);
  const uint32_t d = batch.shape.head_dim;
  batch.q->at(20, d) = f32_to_half(NAN);  // of row 20, head 1
  const device::Buffer memory = upload(batch.cache_memory());
  const DeviceH q(*this, *batch.q);
  const DeviceSequences sequences(*this, batch.rows, batch.shape.block_tokens);
  for (const Ops* ops : {&fast_, &deterministic_}) {
    const DeviceH out(*this, batch.q->rows, batch.q->cols);
    ops->attention(*stream_,
                   batch.args(batch.kv_in(memory), q.tensor(), sequences.get(), out.tensor()));
    MatrixF got = to_f32(out.get());
    for (uint32_t c = d; c < 2 * d; ++c) {
      EXPECT_TRUE(std::isnan(got.at(20, c)));
      got.at(20, c) = expected.data[20 * got.cols + c];
    }
    expect_near(got, expected, kAttentionBound, ops->numerics);
  }
}

}  // namespace
}  // namespace baton::ops
