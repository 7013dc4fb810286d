#include "tests/gpu/attention_bench.h"

#include <fmt/format.h>

#include <cmath>

namespace baton::gpu {
namespace {

using device::Tensor;

// Seconds of attention of all rows of these sequences, by each table. Chunks are not recorded: the
// host plans them anew each time.
struct Measured {
  Spread fast, deterministic;
};
Measured measure(Lab& lab, const BenchCache& cache, const BenchSequences& sequences,
                 uint32_t rows) {
  const formats::ModelConfig& c = lab.config;
  const int64_t width = int64_t{c.num_heads} * c.head_dim;
  const device::Buffer q = lab.random(static_cast<size_t>(rows * width) * 2);
  const device::Buffer out = lab.memory(static_cast<size_t>(rows * width) * 2);
  const auto time = [&](const ops::Ops& ops) {
    const Enqueue enqueue = [&](uint32_t i) {
      ops.attention(*lab.stream, {.q = Tensor::matrix(q.data(), lab.half, rows, width),
                                  .kv = cache.layer(i),
                                  .num_heads = c.num_heads,
                                  .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                                  .sequences = sequences.get(),
                                  .out = Tensor::matrix(out.data(), lab.half, rows, width)});
    };
    const bool decode = sequences.host().size() == rows;
    return decode ? time_recorded(*lab.stream, lab.repeats, enqueue)
                  : time_called(*lab.stream, lab.repeats, enqueue);
  };
  return {time(lab.fast), time(lab.deterministic)};
}

double kv_bytes_a_token(const formats::ModelConfig& c) {
  return 2.0 * c.num_kv_heads * c.head_dim * 2;  // K and V of one layer, halves
}

}  // namespace

json::array measure_decode_attention(Lab& lab, const BenchCache& cache, Parts* parts) {
  const formats::ModelConfig& c = lab.config;
  std::vector<uint32_t> batches = {1, 8, 64, 128}, contexts = {1024, 4096, 8192};
  if (lab.quick) batches = {1, 64}, contexts = {1024, 4096};
  json::array found;
  for (const uint32_t batch : batches) {
    for (const uint32_t context : contexts) {
      if (!cache.fits(batch, context)) continue;
      const BenchSequences sequences(lab, cache, batch, 1, context - 1);
      const Measured s = measure(lab, cache, sequences, batch);
      const double tokens = 1.0 * batch * context;
      Part& part = (*parts)[{attention_name(context), batch}];
      part = {.seconds = s.fast.median,
              .deterministic = s.deterministic.median,
              .bytes = tokens * kv_bytes_a_token(c) + 4.0 * batch * c.num_heads * c.head_dim,
              .flop = 4.0 * tokens * c.num_heads * c.head_dim};
      const double of_read = part.bytes / part.seconds / lab.roofs.read_bytes_s;
      say(
          fmt::format("attention of {:3} x {:4} tokens: {:8.1f} us, {:5.0f} GB/s, {:3.0f} % of "
                      "reading; deterministic {:8.1f}",
                      batch, context, part.seconds * 1e6, part.bytes / part.seconds * 1e-9,
                      of_read * 100, part.deterministic * 1e6));
      found.push_back(json::object{{"batch", batch},
                                   {"context", context},
                                   {"block_tokens", cache.cache().layout().block_tokens},
                                   {"seconds", to_json(s.fast)},
                                   {"deterministic", to_json(s.deterministic)},
                                   {"bytes", part.bytes},
                                   {"of_read", of_read}});
    }
  }
  return found;
}

json::array measure_prefill_attention(Lab& lab, const BenchCache& cache, Parts* parts) {
  const formats::ModelConfig& c = lab.config;
  struct Chunk {
    uint32_t rows, position;
  };
  std::vector<Chunk> chunks = {{2048, 0}, {4096, 0}, {8192, 0}, {2048, 6144}, {512, 7680}};
  if (lab.quick) chunks = {{2048, 0}, {8192, 0}};
  json::array found;
  for (const auto& [rows, position] : chunks) {
    if (!cache.fits(1, position + rows)) continue;
    const BenchSequences sequences(lab, cache, 1, rows, position);
    const Measured s = measure(lab, cache, sequences, rows);
    const double pairs = 1.0 * rows * position + rows * (rows + 1.0) / 2;
    const double flop = 4.0 * pairs * c.num_heads * c.head_dim;
    if (position == 0) {
      (*parts)[{"prefill_attention", rows}] = {
          .seconds = s.fast.median, .deterministic = s.deterministic.median, .flop = flop};
    }
    const double of_blas = flop / s.fast.median / lab.roofs.blas_flop_s;
    say(
        fmt::format("attention of {} rows behind {} tokens: {:8.1f} us, {:5.0f} TFLOP/s, {:3.0f} % "
                    "of 8192^3; deterministic {:8.1f}",
                    rows, position, s.fast.median * 1e6, flop / s.fast.median * 1e-12,
                    of_blas * 100, s.deterministic.median * 1e6));
    found.push_back(json::object{{"rows", rows},
                                 {"position", position},
                                 {"seconds", to_json(s.fast)},
                                 {"deterministic", to_json(s.deterministic)},
                                 {"flop", flop},
                                 {"of_blas", of_blas}});
  }
  return found;
}

}  // namespace baton::gpu
