#include "tests/gpu/ops_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/ops/cuda/cuda_matrix.h"
#include "tests/gpu/blas_roof.h"
#include "tests/gpu/roof.h"

namespace baton::gpu {
namespace {

using device::Tensor;
using ops::PackedMatrix;

constexpr int64_t kSquare = 8192;

const void* data_of(const PackedMatrix& w) { return static_cast<const ops::CudaMatrix&>(w).data(); }

// The fastest algorithm of those offered, and its time.
Spread best_blas(Lab& lab, RawBlas& blas, const RawProduct& shape,
                 const std::function<RawProduct(uint32_t)>& product) {
  const size_t count = blas.prepare(shape);
  size_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (size_t a = 0; a < count; ++a) {
    const Spread s =
        time_recorded(*lab.stream, 2, [&](uint32_t i) { blas.run(*lab.stream, product(i), a); });
    if (s.median >= least) continue;
    least = s.median;
    best = a;
  }
  return time_recorded(*lab.stream, lab.repeats,
                       [&](uint32_t i) { blas.run(*lab.stream, product(i), best); });
}

// One of the model's matrices.
struct Kind {
  std::string name;
  const std::unique_ptr<PackedMatrix> model::LayerWeights::*matrix;  // null: the head
  bool to_f32;                                                       // and accumulated
};
const Kind kKinds[] = {{"qkv", &model::LayerWeights::qkv, false},
                       {"o", &model::LayerWeights::o, true},
                       {"gate_up", &model::LayerWeights::gate_up, false},
                       {"down", &model::LayerWeights::down, true},
                       {"head", nullptr, true}};

json::object measure_product(Lab& lab, RawBlas& blas, const model::Weights& weights,
                             const Kind& kind, uint32_t m, Part* part) {
  const auto matrix = [&](uint32_t i) -> const PackedMatrix& {
    if (kind.matrix == nullptr) return *weights.head;
    return *(weights.layers[i % weights.layers.size()].*kind.matrix);
  };
  const int64_t n = matrix(0).n(), k = matrix(0).k();
  const bool accumulate = kind.to_f32 && kind.matrix != nullptr;
  const size_t out_bytes = static_cast<size_t>(m * n) * (kind.to_f32 ? 4 : 2);
  const device::Buffer x_memory = lab.random(static_cast<size_t>(m * k) * 2);
  const device::Buffer out_memory = lab.memory(out_bytes);
  const Tensor x = Tensor::matrix(x_memory.data(), lab.half, m, k);
  const Tensor out = Tensor::matrix(out_memory.data(), kind.to_f32 ? DType::kF32 : lab.half, m, n);
  const auto time = [&](const ops::Ops& ops) {
    return time_recorded(*lab.stream, lab.repeats, [&](uint32_t i) {
      ops.matmul(*lab.stream, x, matrix(i), nullptr, out, accumulate);
    });
  };
  const Spread ours = time(lab.fast), deterministic = time(lab.deterministic);
  const RawProduct shape = {x.data, nullptr, out.data, m, n, k, kind.to_f32, accumulate, lab.half};
  const Spread cublas = best_blas(lab, blas, shape, [&](uint32_t i) {
    RawProduct p = shape;
    p.w = data_of(matrix(i));
    return p;
  });
  *part = {.seconds = ours.median,
           .deterministic = deterministic.median,
           .cublas = cublas.median,
           .bytes = static_cast<double>(n * k * 2 + m * k * 2) +
                    static_cast<double>(out_bytes) * (accumulate ? 2 : 1),
           .flop = 2.0 * m * n * k};
  say(
      fmt::format("{:8} {:5} rows: {:9.1f} us, cuBLASLt {:9.1f}, deterministic {:9.1f}; "
                  "{:6.0f} GB/s {:6.1f} TFLOP/s",
                  kind.name, m, ours.median * 1e6, cublas.median * 1e6, deterministic.median * 1e6,
                  part->bytes / ours.median * 1e-9, part->flop / ours.median * 1e-12));
  return {{"name", kind.name},
          {"m", m},
          {"n", n},
          {"k", k},
          {"seconds", to_json(ours)},
          {"deterministic", to_json(deterministic)},
          {"cublas", to_json(cublas)},
          {"bytes", part->bytes},
          {"flop", part->flop}};
}

}  // namespace

json::object measure_roofs(Lab& lab) {
  const size_t bytes = size_t{lab.quick ? 2u : 8u} << 30;
  Spread read = {.median = std::numeric_limits<double>::infinity()};
  Spread copy;
  {
    const device::Buffer from = lab.random(bytes), to = lab.memory(bytes);
    for (uint32_t way = 0; way < kReadWays; ++way) {
      const Spread s = time_called(*lab.stream, lab.repeats, [&](uint32_t) {
        enqueue_read(*lab.stream, from.data(), bytes, way, to.data());
      });
      if (s.median < read.median) read = s;
    }
    copy = time_called(*lab.stream, lab.repeats, [&](uint32_t) {
      lab.device->copy(*lab.stream, to.data(), from.data(), bytes);
    });
  }
  RawBlas blas(*lab.device);
  const size_t square = static_cast<size_t>(kSquare * kSquare) * 2;
  const device::Buffer x = lab.random(square), w = lab.random(square), out = lab.memory(square);
  RawProduct product = {x.data(), w.data(), out.data(), kSquare, kSquare, kSquare};
  product.half = lab.half;
  const Spread raw = best_blas(lab, blas, product, [&](uint32_t) { return product; });
  const double flop = 2.0 * kSquare * kSquare * kSquare;
  lab.roofs = {.read_bytes_s = static_cast<double>(bytes) / read.median,
               .copy_bytes_s = 2.0 * static_cast<double>(bytes) / copy.median,
               .blas_flop_s = flop / raw.median};
  say(fmt::format("reading {:.0f} GB/s, copying {:.0f} GB/s, cuBLASLt 8192^3 {:.0f} TFLOP/s",
                  lab.roofs.read_bytes_s * 1e-9, lab.roofs.copy_bytes_s * 1e-9,
                  lab.roofs.blas_flop_s * 1e-12));
  return {{"read_bytes_s", lab.roofs.read_bytes_s},
          {"copy_bytes_s", lab.roofs.copy_bytes_s},
          {"blas_flop_s", lab.roofs.blas_flop_s},
          {"read_seconds", to_json(read)},
          {"copy_seconds", to_json(copy)},
          {"blas_seconds", to_json(raw)},
          {"bytes", bytes}};
}

json::array measure_products(Lab& lab, const model::Weights& weights, Parts* parts) {
  RawBlas blas(*lab.device);
  std::vector<uint32_t> rows = {1, 8, 64, 128, 2048, 8192};
  if (lab.quick) rows = {1, 64, 2048};
  json::array found;
  for (const Kind& kind : kKinds) {
    for (const uint32_t m : rows) {
      if (kind.matrix == nullptr && m > 128) continue;  // only rows that are sampled have a head
      found.push_back(measure_product(lab, blas, weights, kind, m, &(*parts)[{kind.name, m}]));
    }
  }
  return found;
}

json::array measure_elementwise(Lab& lab, const model::Weights& weights, const BenchCache& cache,
                                Parts* parts) {
  const formats::ModelConfig& c = lab.config;
  const int64_t hidden = c.hidden, inter = c.intermediate, q_width = c.num_heads * c.head_dim;
  const int64_t qkv_width = q_width + 2 * c.num_kv_heads * c.head_dim, half = c.head_dim / 2;
  std::vector<uint32_t> counts = {1, 8, 64, 128, 2048, 8192};
  if (lab.quick) counts = {1, 64, 2048};
  json::array found;
  for (const uint32_t rows : counts) {
    // Large ones do not fit a cache; small ones do in a step as well, where they were just written.
    const device::Buffer x = lab.random_f32(static_cast<size_t>(rows * hidden));
    const device::Buffer wide = lab.random(static_cast<size_t>(rows * 2 * inter) * 2);
    const device::Buffer qkv = lab.random(static_cast<size_t>(rows * qkv_width) * 2);
    const device::Buffer angles = lab.random_f32(static_cast<size_t>(rows * half));
    const device::Buffer out = lab.memory(static_cast<size_t>(rows * inter) * 2);
    const device::Buffer ids = lab.memory(rows * sizeof(TokenId));
    const std::vector<TokenId> some_ids = [&] {
      std::vector<TokenId> v(rows);
      for (uint32_t i = 0; i < rows; ++i) v[i] = static_cast<TokenId>(i * 7919 % c.vocab_size);
      return v;
    }();
    lab.fill(ids, some_ids.data(), rows * sizeof(TokenId));
    const bool decode = rows <= 128;
    const BenchSequences sequences(lab, cache, decode ? rows : 1, decode ? 1 : rows,
                                   decode ? 100 : 0);
    const auto halves = [&](const device::Buffer& b, int64_t cols) {
      return Tensor::matrix(b.data(), lab.half, rows, cols);
    };
    const auto f32 = [&](const device::Buffer& b, int64_t cols) {
      return Tensor::matrix(b.data(), DType::kF32, rows, cols);
    };
    const auto measure = [&](const std::string& name, double bytes_a_row, const Enqueue& enqueue) {
      const Spread s = time_recorded(*lab.stream, lab.repeats, enqueue);
      (*parts)[{name, rows}] = {
          .seconds = s.median, .deterministic = s.median, .bytes = bytes_a_row * rows};
      say(fmt::format("{:12} {:5} rows: {:8.2f} us, {:6.0f} GB/s", name, rows, s.median * 1e6,
                      bytes_a_row * rows / s.median * 1e-9));
      found.push_back(json::object{
          {"name", name}, {"rows", rows}, {"seconds", to_json(s)}, {"bytes", bytes_a_row * rows}});
    };
    auto& stream = *lab.stream;
    const std::span<const TokenId> all_ids(reinterpret_cast<const TokenId*>(ids.data()), rows);
    measure("embed", hidden * 6.0,
            [&](uint32_t) { lab.fast.embed(stream, all_ids, weights.embedding, f32(x, hidden)); });
    measure("rms_norm", hidden * 6.0, [&](uint32_t i) {
      lab.fast.rms_norm(stream, f32(x, hidden),
                        weights.layers[i % weights.layers.size()].attn_norm.data(), 1e-5f,
                        halves(out, hidden));
    });
    measure("rope_kv", qkv_width * 4.0 + half * 8.0, [&](uint32_t i) {
      lab.fast.rope_and_write_kv(stream, {.qkv = halves(qkv, qkv_width),
                                          .cos = f32(angles, half),
                                          .sin = f32(angles, half),
                                          .num_heads = c.num_heads,
                                          .sequences = sequences.get(),
                                          .kv = cache.layer(i),
                                          .q_out = halves(out, q_width)});
    });
    measure("silu_mul", inter * 6.0, [&](uint32_t) {
      lab.fast.silu_mul(stream, halves(wide, 2 * inter), halves(out, inter));
    });
  }
  return found;
}

}  // namespace baton::gpu
