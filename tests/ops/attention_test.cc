#include "tests/ops/cache_testing.h"

namespace baton::ops {
namespace {

AttentionArgs make_args(const CacheShape& shape, const Cache& cache, MatrixF& q, MatrixF& out,
                        std::span<const SequenceRows> sequences) {
  return {.q = q.tensor(),
          .kv = cache.kv(),
          .num_heads = shape.heads,
          .scale = 1.0f / std::sqrt(static_cast<float>(shape.head_dim)),
          .sequences = Sequences::on_host(sequences),
          .out = out.tensor()};
}

// The kernels of the table on this machine, and those that every machine has.
struct Kernels {
  const char* name;
  Ops (*ops)();
};
const auto kKernels = testing::Values(Kernels{"Table", cpu_ops}, Kernels{"Own", own_ops});
std::string kernels_name(const testing::TestParamInfo<Kernels>& info) { return info.param.name; }

bool rounds_to_halves(const Ops& ops, const CacheShape& shape) {
  return ops.attention == cpu_attention_dot && shape.dtype == DType::kBF16;
}

struct Reference {
  std::vector<double> out, size;  // the latter: the sums of their terms' sizes
};

// Softmax attention of one row and head in double.
Reference reference(const CacheShape& shape, const Cache& cache, size_t seq, const float* q,
                    uint32_t head, uint32_t position) {
  const uint32_t kv_head = head / (shape.heads / shape.kv_heads);
  std::vector<double> score(position + 1);
  double sum = 0;
  for (uint32_t t = 0; t <= position; ++t) {
    for (uint32_t d = 0; d < shape.head_dim; ++d) {
      score[t] += static_cast<double>(q[d]) * cache.get(seq, 0, kv_head, t, d);
    }
    score[t] /= std::sqrt(static_cast<double>(shape.head_dim));
  }
  const double max = *std::max_element(score.begin(), score.end());
  for (double& s : score) sum += s = std::exp(s - max);
  Reference r = {std::vector<double>(shape.head_dim), std::vector<double>(shape.head_dim)};
  for (uint32_t t = 0; t <= position; ++t) {
    for (uint32_t d = 0; d < shape.head_dim; ++d) {
      const double term = score[t] / sum * cache.get(seq, 1, kv_head, t, d);
      r.out[d] += term;
      r.size[d] += std::abs(term);
    }
  }
  return r;
}

class AttentionShapes : public testing::TestWithParam<std::tuple<Kernels, CacheShape>> {};

TEST_P(AttentionShapes, IsSoftmaxAttentionAndReadsNoUnwrittenMemory) {
  const auto& [kernels, shape] = GetParam();
  Random random(5);
  const Ops ops = kernels.ops();
  // Decode rows and prefill chunks of several sequences, in one batch.
  const std::vector<uint32_t> lengths = {1, 17, 256, 257, 300, 513, 700};
  const std::vector<uint32_t> rows = {1, 17, 1, 2, 70, 513, 1};
  Cache cache(random, shape, lengths);
  std::vector<SequenceRows> sequences;
  uint32_t total = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    cache.fill(random, s, lengths[s]);
    sequences.push_back({total, rows[s], lengths[s] - rows[s], cache.table(s)});
    total += rows[s];
  }
  const int64_t width = shape.heads * shape.head_dim;
  MatrixF q = random_matrix(random, total, width), out(total, width);
  // With queries in bf16 only the rounding of the probabilities is left.
  const bool rounds = rounds_to_halves(ops, shape);
  if (rounds) q = to_f32(to_halves(q));
  const double unit = rounds ? 0x1p-8 : 0;
  Cpu cpu(2);
  ops.attention(*cpu.stream, make_args(shape, cache, q, out, sequences));
  for (size_t s = 0; s < lengths.size(); ++s) {
    for (uint32_t r = 0; r < rows[s]; r += (rows[s] > 20 ? 37 : 1)) {
      const uint32_t row = sequences[s].first_row + r;
      for (uint32_t h = 0; h < shape.heads; ++h) {
        const float* query = q.row(row) + h * shape.head_dim;
        const auto expected = reference(shape, cache, s, query, h, sequences[s].position + r);
        for (uint32_t d = 0; d < shape.head_dim; ++d) {
          ASSERT_NEAR(out.at(row, h * shape.head_dim + d), expected.out[d],
                      unit * expected.size[d] + 2e-5)
              << "sequence " << s << " row " << r << " head " << h << " dim " << d;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, AttentionShapes,
    testing::Combine(kKernels, testing::Values(CacheShape{9, 3, 64, 16, DType::kBF16},
                                               CacheShape{4, 4, 80, 32, DType::kBF16},
                                               CacheShape{8, 1, 96, 64, DType::kBF16},
                                               CacheShape{2, 2, 128, 256, DType::kF32},
                                               CacheShape{14, 2, 16, 128, DType::kF32},
                                               CacheShape{14, 2, 16, 128, DType::kBF16},
                                               CacheShape{2, 1, 256, 16, DType::kBF16})));

class Attention : public testing::TestWithParam<Kernels> {
 protected:
  const Ops ops = GetParam().ops();
};
INSTANTIATE_TEST_SUITE_P(Kernels, Attention, kKernels, kernels_name);

// The rows [0, length) of one sequence, computed in the given chunks.
MatrixF in_chunks(const Ops& ops, Cpu& cpu, const CacheShape& shape, const Cache& cache, size_t seq,
                  MatrixF& q, const std::vector<uint32_t>& chunks) {
  MatrixF out(q.rows, q.cols);
  uint32_t position = 0;
  for (const uint32_t rows : chunks) {
    // The chunk's rows stand behind those of nobody else here: row numbers are positions.
    const SequenceRows part = {position, rows, position, cache.table(seq)};
    ops.attention(*cpu.stream, make_args(shape, cache, q, out, {&part, 1}));
    position += rows;
  }
  EXPECT_EQ(position, q.rows);
  return out;
}

std::vector<uint32_t> equal_chunks(uint32_t length, uint32_t size) {
  std::vector<uint32_t> chunks;
  for (uint32_t at = 0; at < length; at += size) chunks.push_back(std::min(size, length - at));
  return chunks;
}

TEST_P(Attention, ChunksThreadsAndDecodeGiveTheSameBits) {
  const CacheShape shape = {6, 2, 64, 16, DType::kBF16};
  Random random(6);
  const uint32_t length = 600;
  Cache cache(random, shape, {length});
  cache.fill(random, 0, length);
  MatrixF q = random_matrix(random, length, shape.heads * shape.head_dim);
  Cpu one(1);
  const MatrixF whole = in_chunks(ops, one, shape, cache, 0, q, {length});
  for (const unsigned threads : {1u, 2u, 3u}) {
    Cpu cpu(threads);
    for (const uint32_t size : {1u, 5u, 9u, 16u, 64u, 250u, length}) {
      const MatrixF out = in_chunks(ops, cpu, shape, cache, 0, q, equal_chunks(length, size));
      expect_same_bits(out.data.data(), whole.data.data(), whole.data.size(),
                       "chunks of " + std::to_string(size));
    }
    std::vector<uint32_t> odd;
    for (uint32_t left = length; left > 0; left -= odd.back()) {
      odd.push_back(static_cast<uint32_t>(pick(random, 1, std::min(left, 90u))));
    }
    const MatrixF out = in_chunks(ops, cpu, shape, cache, 0, q, odd);
    expect_same_bits(out.data.data(), whole.data.data(), whole.data.size(), "odd chunks");
  }
}

TEST_P(Attention, BlockSizeAndCompanyDoNotShow) {
  Random random(7);
  const uint32_t length = 400;
  CacheShape shape = {4, 2, 32, 16, DType::kBF16};
  Random same(8);
  Cache alone(random, shape, {length});
  alone.fill(same, 0, length);
  MatrixF q = random_matrix(random, length, shape.heads * shape.head_dim);
  Cpu cpu(2);
  const MatrixF expected = in_chunks(ops, cpu, shape, alone, 0, q, {length});
  for (const uint32_t block_tokens : {32u, 256u}) {
    shape.block_tokens = block_tokens;
    // The sequence's last row among 15 strangers of other lengths.
    std::vector<uint32_t> lengths(16);
    for (uint32_t& n : lengths) n = static_cast<uint32_t>(pick(random, 1, 900));
    lengths[5] = length;
    Cache cache(random, shape, lengths);
    MatrixF rows = random_matrix(random, 16, q.cols), out(16, q.cols);
    std::copy_n(q.row(length - 1), q.cols, rows.row(5));
    std::vector<SequenceRows> sequences;
    for (uint32_t s = 0; s < 16; ++s) {
      Random content(s == 5 ? 8 : 100 + s);
      cache.fill(content, s, lengths[s]);
      sequences.push_back({s, 1, lengths[s] - 1, cache.table(s)});
    }
    ops.attention(*cpu.stream, make_args(shape, cache, rows, out, sequences));
    expect_same_bits(out.row(5), expected.data.data() + (length - 1) * q.cols, q.cols,
                     "blocks of " + std::to_string(block_tokens));
  }
}

// Random batches of prefill chunks and decode rows: each row has the bits it has alone.
TEST_P(Attention, EveryRowOfARandomBatchEqualsItselfAlone) {
  Random random(11);
  Cpu one(1), many(3);
  for (int trial = 0; trial < 25; ++trial) {
    const auto kv_heads = static_cast<uint32_t>(pick(random, 1, 3));
    const CacheShape shape = {kv_heads * static_cast<uint32_t>(pick(random, 1, 8)), kv_heads,
                              16 * static_cast<uint32_t>(pick(random, 1, 8)),
                              16u << pick(random, 0, 4),
                              pick(random, 0, 3) == 0 ? DType::kF32 : DType::kBF16};
    std::vector<uint32_t> lengths(static_cast<size_t>(pick(random, 1, 5)));
    for (uint32_t& n : lengths) n = static_cast<uint32_t>(pick(random, 1, 800));
    Cache cache(random, shape, lengths);
    std::vector<SequenceRows> sequences;
    uint32_t total = 0;
    for (size_t s = 0; s < lengths.size(); ++s) {
      cache.fill(random, s, lengths[s]);
      const auto most = static_cast<int64_t>(lengths[s]);
      const auto rows = static_cast<uint32_t>(pick(random, 1, std::min<int64_t>(most, 40)));
      sequences.push_back({total, rows, lengths[s] - rows, cache.table(s)});
      total += rows;
    }
    MatrixF q = random_matrix(random, total, shape.heads * shape.head_dim);
    MatrixF together(total, q.cols), alone(total, q.cols);
    ops.attention(*many.stream, make_args(shape, cache, q, together, sequences));
    for (const SequenceRows& s : sequences) {
      for (uint32_t r = 0; r < s.num_rows; ++r) {
        const SequenceRows row = {s.first_row + r, 1, s.position + r, s.block_table};
        ops.attention(*one.stream, make_args(shape, cache, q, alone, {&row, 1}));
      }
    }
    expect_same_bits(together.data.data(), alone.data.data(), alone.data.size(),
                     "batch " + std::to_string(trial));
  }
}

TEST_P(Attention, NaNShowsInItsOwnRowAlone) {
  const CacheShape shape = {3, 1, 32, 16, DType::kBF16};
  Random random(10);
  Cpu cpu(1);
  Cache cache(random, shape, {40});
  cache.fill(random, 0, 40);
  MatrixF q = random_matrix(random, 40, shape.heads * shape.head_dim);
  const MatrixF expected = in_chunks(ops, cpu, shape, cache, 0, q, {40});
  q.at(20, 32) = std::nanf("");  // of row 20, head 1
  MatrixF out = in_chunks(ops, cpu, shape, cache, 0, q, {40});
  for (int64_t c = 32; c < 64; ++c) {
    EXPECT_TRUE(std::isnan(out.at(20, c)));
    out.at(20, c) = expected.data[20 * q.cols + c];
  }
  expect_same_bits(out.data.data(), expected.data.data(), out.data.size(), "the others");
}

TEST_P(Attention, LaterTokenShowsInNoEarlierRow) {
  const CacheShape shape = {3, 1, 32, 16, DType::kBF16};
  for (uint32_t later = 1; later < 40; later += 5) {
    Random random(12);
    Cpu cpu(1);
    Cache cache(random, shape, {40});
    cache.fill(random, 0, 40);
    MatrixF q = random_matrix(random, 40, shape.heads * shape.head_dim);
    const MatrixF expected = in_chunks(ops, cpu, shape, cache, 0, q, {40});
    for (uint32_t d = 0; d < shape.head_dim; ++d) {
      cache.set(0, 0, 0, later, d, std::nanf(""));
      cache.set(0, 1, 0, later, d, std::nanf(""));
    }
    const MatrixF out = in_chunks(ops, cpu, shape, cache, 0, q, {40});
    expect_same_bits(out.data.data(), expected.data.data(), later * q.cols,
                     "before " + std::to_string(later));
    EXPECT_TRUE(std::isnan(out.data[later * q.cols]));
  }
}

TEST_P(Attention, MergedPartialsEqualAttentionBitForBitInEitherType) {
  const CacheShape shape = {6, 3, 48, 64, DType::kBF16};
  Random random(9);
  Cpu cpu(2);
  const std::vector<uint32_t> lengths = {1300, 700, 90}, rows = {3, 300, 1};
  Cache cache(random, shape, lengths);
  std::vector<SequenceRows> sequences;
  uint32_t total = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    cache.fill(random, s, lengths[s]);
    sequences.push_back({total, rows[s], lengths[s] - rows[s], cache.table(s)});
    total += rows[s];
  }
  MatrixF q = random_matrix(random, total, shape.heads * shape.head_dim);
  MatrixF whole(total, q.cols), merged(total, q.cols);
  const AttentionArgs args = make_args(shape, cache, q, whole, sequences);
  ops.attention(*cpu.stream, args);
  // Tiles 0-1, 2-4 and 5, as three workers would have them.
  const uint32_t bounds[] = {0, 2, 5, 6};
  std::vector<MatrixF> memory;
  std::vector<AttentionPartials> parts;
  for (int i = 0; i < 3; ++i) {
    const uint32_t tiles = bounds[i + 1] - bounds[i];
    memory.emplace_back(total, shape.heads * tiles * (shape.head_dim + 2));
    parts.push_back({memory.back().tensor(), bounds[i], tiles});
    ops.attention_partials(*cpu.stream, args, parts.back());
  }
  ops.merge_partials(*cpu.stream, parts, shape.heads, merged.tensor());
  expect_same_bits(merged.data.data(), whole.data.data(), whole.data.size(), "merged");

  MatrixH half(total, q.cols), half_merged(total, q.cols);
  AttentionArgs half_args = args;
  half_args.out = half.tensor();
  ops.attention(*cpu.stream, half_args);
  EXPECT_EQ(half.data, to_halves(whole).data);
  ops.merge_partials(*cpu.stream, parts, shape.heads, half_merged.tensor());
  EXPECT_EQ(half_merged.data, half.data);
}

}  // namespace
}  // namespace baton::ops
