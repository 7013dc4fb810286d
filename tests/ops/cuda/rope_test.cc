#include "tests/ops/cuda/device_cache.h"

namespace baton::ops {
namespace {

std::vector<float> frequencies(uint32_t head_dim) {
  std::vector<float> f(head_dim / 2);
  for (uint32_t i = 0; i < f.size(); ++i) {
    f[i] = static_cast<float>(std::pow(500000.0, -2.0 * i / head_dim));
  }
  return f;
}

using CudaRope = OnGpu;

TEST_F(CudaRope, AnglesOfFarPositionsAreExact) {
  std::vector<float> freq = frequencies(128);
  freq[1] = 0.87f;
  std::vector<uint32_t> positions;
  for (uint32_t p = 0; p < 1000; ++p) positions.push_back(p * 131);
  const Shared<uint32_t> positions_there(*this, positions);
  const Shared<float> freq_there(*this, freq);
  const DeviceF cos(*this, 1000, 64), sin(*this, 1000, 64);
  fast_.rope_angles(*stream_, positions_there.get(), freq_there.get(), cos.tensor(), sin.tensor());
  const MatrixF c = cos.get(), s = sin.get();
  for (uint32_t p = 0; p < 1000; ++p) {
    for (uint32_t i = 0; i < 64; ++i) {
      const double angle = static_cast<double>(positions[p]) * freq[i];
      ASSERT_NEAR(c.data[p * 64 + i], std::cos(angle), 1e-6) << positions[p] << " " << i;
      ASSERT_NEAR(s.data[p * 64 + i], std::sin(angle), 1e-6) << positions[p] << " " << i;
    }
  }
}

struct Case {
  CacheShape shape;
  bool norms;
};
void PrintTo(const Case& c, std::ostream* os) { *os << to_string(c.shape); }
std::string name_of(const testing::TestParamInfo<Case>& info) {
  return to_string(info.param.shape) + (info.param.norms ? "normed" : "");
}

class CudaRopeShapes : public OnGpu, public testing::WithParamInterface<Case> {
 protected:
  // One batch through the CPU and the GPU, from caches that hold the same.
  void compare(const std::vector<uint32_t>& lengths, const std::vector<uint32_t>& rows,
               uint32_t nobodys) {
    const auto [shape, norms] = GetParam();
    Random random(1);
    Batch batch(random, shape, lengths, rows, 1.0f, nobodys);
    // Only what stands before the rows is there; they write the rest.
    Cache before(random, shape, lengths);
    const size_t bytes = batch.cache_bytes();
    const std::span<const std::byte> nothing(before.kv().base, bytes);  // NaN everywhere
    const device::Buffer memory = upload(nothing);
    std::vector<float> wide_cache;
    PagedKv cpu_kv = before.kv();
    if (shape.dtype == DType::kF16) {
      wide_cache = Batch::widened(nothing);
      cpu_kv = Batch::as_f32(cpu_kv, wide_cache);
    }
    std::vector<uint32_t> positions;
    for (size_t s = 0; s < lengths.size(); ++s) {
      batch.rows[s].block_table = before.table(s);
      for (uint32_t r = 0; r < rows[s]; ++r) positions.push_back(batch.rows[s].position + r);
    }
    positions.resize(batch.total + nobodys);
    const int64_t total = batch.total + nobodys, d = shape.head_dim;
    const int64_t q_width = shape.heads * d, width = q_width + 2 * shape.kv_heads * d;
    const MatrixH qkv = to_halves(random_matrix(random, total, width, 2.0f));
    const MatrixF q_norm = random_matrix(random, 1, d), k_norm = random_matrix(random, 1, d);
    MatrixF wide = to_f32(qkv), cos(total, d / 2), sin(total, d / 2), q_expected(total, q_width);
    cpu_ops_.rope_angles(*cpu_.stream, positions, frequencies(shape.head_dim), cos.tensor(),
                         sin.tensor());
    RopeKvArgs args = {.qkv = wide.tensor(),
                       .cos = cos.tensor(),
                       .sin = sin.tensor(),
                       .q_norm = norms ? q_norm.data.data() : nullptr,
                       .k_norm = norms ? k_norm.data.data() : nullptr,
                       .norm_eps = 1e-6f,
                       .num_heads = shape.heads,
                       .sequences = Sequences::on_host(batch.rows),
                       .kv = cpu_kv,
                       .q_out = q_expected.tensor()};
    cpu_ops_.rope_and_write_kv(*cpu_.stream, args);

    const DeviceH qkv_there(*this, qkv), q_out(*this, total, q_width, q_width + 8);
    const DeviceF cos_there(*this, cos), sin_there(*this, sin);
    const DeviceF q_norm_there(*this, q_norm), k_norm_there(*this, k_norm);
    const DeviceSequences sequences(*this, batch.rows, shape.block_tokens);
    args.qkv = qkv_there.tensor();
    args.cos = cos_there.tensor();
    args.sin = sin_there.tensor();
    if (norms) {
      args.q_norm = q_norm_there.data();
      args.k_norm = k_norm_there.data();
    }
    args.sequences = sequences.get();
    args.kv = before.kv();
    args.kv.base = memory.data();
    args.q_out = q_out.tensor();
    fast_.rope_and_write_kv(*stream_, args);
    expect_near(rows_of(to_f32(q_out.get()), 0, batch.total), rows_of(q_expected, 0, batch.total),
                kHalfBound, "q");
    // A NaN that stayed is one that nobody wrote.
    auto* written = reinterpret_cast<uint16_t*>(before.kv().base);
    for (size_t i = 0; i < wide_cache.size(); ++i) {
      if (!std::isnan(wide_cache[i])) written[i] = f32_to_half(wide_cache[i]);
    }
    check_cache(before, bytes, download<uint16_t>(memory.data(), bytes / 2));
  }

  // Written where the CPU wrote; nowhere else.
  void check_cache(const Cache& expected, size_t bytes, const std::vector<uint16_t>& got) {
    const auto* cpu = reinterpret_cast<const uint16_t*>(expected.kv().base);
    MatrixF a(1, static_cast<int64_t>(bytes / 2)), b = a;
    const size_t plane = expected.kv().plane_stride / 2;
    for (size_t i = 0; i < got.size(); ++i) {
      if (cpu[i] == 0xffff || i / plane % 2 == 1) {  // never written, or V, which is as it was
        ASSERT_EQ(got[i], cpu[i]) << "element " << i << " of the cache";
      } else {
        a.data[i] = half_to_f32(got[i]);
        b.data[i] = half_to_f32(cpu[i]);
      }
    }
    expect_near(a, b, kHalfBound, "K");
  }
};

TEST_P(CudaRopeShapes, RotatesAndWritesTheCache) {
  compare({40, 300, 1, 17, 513}, {40, 33, 1, 0, 1}, 0);
}

TEST_P(CudaRopeShapes, DecodesABatchWithPadding) {
  std::vector<uint32_t> lengths, rows;
  for (uint32_t s = 0; s < 64; ++s) {
    lengths.push_back(1 + s * 7);
    rows.push_back(s % 5 == 4 ? 0 : 1);
  }
  compare(lengths, rows, 13);
}

INSTANTIATE_TEST_SUITE_P(Small, CudaRopeShapes,
                         testing::Values(Case{{9, 3, 64, 16, half_type()}, false},
                                         Case{{4, 2, 80, 32, half_type()}, true}),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Models, CudaRopeShapes,
                         testing::Values(Case{{32, 8, 128, 16, half_type()}, false},
                                         Case{{32, 8, 128, 64, half_type()}, true},
                                         Case{{8, 1, 128, 256, half_type()}, true},
                                         Case{{14, 2, 64, 128, half_type()}, false},
                                         Case{{2, 1, 256, 16, half_type()}, true},
                                         Case{{2, 2, 16, 256, half_type()}, true},
                                         Case{{3, 1, 512, 16, half_type()}, false}),
                         name_of);

TEST_F(CudaRope, CacheRoundsToNearestEvenAndKeepsNaN) {
  const float values[16] = {1.0f,  1.0078125f, 1.015625f, -1.0078125f, 3.3895314e38f, 1e-38f,
                            -0.0f, NAN,        INFINITY,  -INFINITY,   65280.0f,      0.1f,
                            -0.3f, 2.0f,       3.0f,      123392.0f};
  const CacheShape shape = {1, 1, 16, 16, half_type()};
  Random random(2);
  Batch batch(random, shape, {1}, {1});
  const device::Buffer memory = upload(batch.cache_memory());
  MatrixH qkv(1, 48);
  MatrixF cos(1, 8), sin(1, 8);
  for (int i = 0; i < 16; ++i) qkv.data[32 + i] = f32_to_half(values[i]);
  // As a product leaves it; f16 ends at its largest number.
  if (half_type() == DType::kF16) qkv.data[32 + 8] = 0x7c00;
  std::fill(cos.data.begin(), cos.data.end(), 1.0f);
  const DeviceH qkv_there(*this, qkv), q_out(*this, 1, 16);
  const DeviceF cos_there(*this, cos), sin_there(*this, sin);
  const DeviceSequences sequences(*this, batch.rows, 16);
  fast_.rope_and_write_kv(*stream_, {.qkv = qkv_there.tensor(),
                                     .cos = cos_there.tensor(),
                                     .sin = sin_there.tensor(),
                                     .num_heads = 1,
                                     .sequences = sequences.get(),
                                     .kv = batch.kv_in(memory),
                                     .q_out = q_out.tensor()});
  const size_t v = batch.cache.kv().plane_stride / 2;
  const auto got = download<uint16_t>(memory.data(), batch.cache_bytes() / 2);
  for (int i = 0; i < 16; ++i) {
    const float stored = half_to_f32(got[v + i]);
    if (std::isnan(values[i])) {
      EXPECT_TRUE(std::isnan(stored));
    } else {
      EXPECT_EQ(got[v + i], f32_to_half(values[i])) << values[i];
    }
  }
}

}  // namespace
}  // namespace baton::ops
