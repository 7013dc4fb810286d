// Speed of one engine in this process, without servers: prefill and decode tokens a second.
//   engine_bench --model PATH --threads N --prefill 512 --decode-batch 1,16 --context 512
// Prints one JSON object; figures are medians.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/json.hpp>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/device/cpu/cpu_device.h"
#include "common/engine/step_runner.h"
#include "common/formats/model_files.h"
#include "common/model/model.h"
#include "common/ops/cpu/cpu_ops.h"
#include "tests/ops/roof.h"

namespace baton::engine {
namespace {

struct Options {
  std::string model;
  unsigned threads = 2;
  uint32_t prefill = 512;
  std::vector<uint32_t> decode_batch{1, 16};
  uint32_t context = 512;
  uint32_t steps = 32;
  uint32_t runs = 5;
  std::string dtype = "bf16";
};

// What a step has to do at least, whoever computes it: two operations for each weight and row, and
// four for each pair of a query's element and a token that it sees. Behind the last layer's K and
// V only sampled rows count, and so does the head.
double flop_of_step(const formats::ModelConfig& c, double rows, double context_sum,
                    double samples) {
  const double q = 1.0 * c.num_heads * c.head_dim, kv = 2.0 * c.num_kv_heads * c.head_dim;
  const double qkv = c.hidden * (q + kv), rest = q * c.hidden + 3.0 * c.hidden * c.intermediate;
  const double seen = context_sum / rows;  // tokens a row sees on average
  const double attention = 4 * q * seen;
  return c.num_layers * rows * 2 * qkv +
         ((c.num_layers - 1) * rows + samples) * (2 * rest + attention) +
         samples * 2.0 * c.hidden * c.vocab_size;
}

double median(std::vector<double> v) {
  std::sort(v.begin(), v.end());
  return v[v.size() / 2];
}

class Bench final : private StepObserver {
 public:
  explicit Bench(const Options& o) : options_(o) {
    const uint32_t batch = *std::max_element(o.decode_batch.begin(), o.decode_batch.end());
    device_ = device::make_cpu_device(o.threads);
    ops_ = ops::cpu_ops();
    const TimePoint start = Clock::now();
    const formats::ModelFiles files = formats::ModelFiles::open(o.model).value();
    const DType dtype = o.dtype == "f32" ? DType::kF32 : DType::kBF16;
    const uint32_t rows = std::max(o.prefill, batch);
    model_ = model::Model::load(files, *device_, ops_,
                                {.weights = dtype,
                                 .cache = dtype,
                                 .max_rows = rows,
                                 .max_sequences = batch,
                                 .max_samples = batch})
                 .value();
    load_seconds_ = to_seconds(Clock::now() - start);
    const kvcache::KvLayout layout = model_->kv_layout(16);
    blocks_each_ = layout.blocks_for(std::max(o.prefill, o.context + o.steps) + 1);
    const uint32_t blocks = blocks_each_ * batch;
    memory_ = device_->allocate(layout.block_bytes() * blocks).value();
    std::fill_n(memory_.data(), memory_.bytes(), std::byte{0});
    const auto cache =
        kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout, blocks).value();
    const StepLimits limits = {rows, batch, batch, model_->max_context()};
    runner_ = StepRunner::create(*model_, {cache, cache}, *device_, ops_, limits).value();
  }

  boost::json::object run() {
    const formats::ModelConfig& config = model_->config();
    boost::json::object decode, decode_flop, decode_bytes;
    const bool dot = options_.dtype == "bf16" && ops_.numerics.starts_with("cpu-bf16-dot");
    const double kv_bytes = static_cast<double>(model_->kv_layout(16).block_bytes()) / 16;
    for (const double batch : options_.decode_batch) {
      const std::string key = fmt::format("{}", batch);
      decode[key] = decode_tokens_per_second(static_cast<uint32_t>(batch));
      decode_flop[key] =
          flop_of_step(config, batch, batch * (options_.context + options_.steps / 2.0), batch) /
          batch;
      decode_bytes[key] = static_cast<double>(model_->weight_bytes()) / batch +
                          (options_.context + options_.steps / 2.0) * kv_bytes;
    }
    const double rows = options_.prefill;
    return {{"model", std::filesystem::path(options_.model).filename().string()},
            {"threads", options_.threads},
            {"dtype", options_.dtype},
            {"numerics", model_->numerics()},
            {"load_s", load_seconds_},
            {"prefill", options_.prefill},
            {"context", options_.context},
            {"prefill_tok_s", prefill_tokens_per_second()},
            {"decode_tok_s", decode},
            {"prefill_flop_per_token", flop_of_step(config, rows, rows * rows / 2, 1) / rows},
            {"decode_flop_per_token", decode_flop},
            {"decode_bytes_per_token", decode_bytes},
            {"weight_bytes", model_->weight_bytes()},
            {"arithmetic", dot ? "bf16" : "float32"},
            {"roof_gflop_s", dot ? ops::measure_dot_gflops(options_.threads)
                                 : ops::measure_fma_gflops(options_.threads)},
            {"roof_gb_s", ops::measure_read_gbps(options_.threads)}};
  }

 private:
  void on_layer(StepBatch&, uint32_t) override {}

  double seconds(StepBatch& batch) {
    const TimePoint start = Clock::now();
    runner_->run(batch, *this);
    return to_seconds(Clock::now() - start);
  }

  std::vector<BlockId> table(uint32_t sequence) const {
    std::vector<BlockId> blocks;
    for (uint32_t i = 0; i < blocks_each_; ++i)
      blocks.push_back(BlockId{sequence * blocks_each_ + i});
    return blocks;
  }

  // A prompt from an empty cache to its first token.
  double prefill_tokens_per_second() {
    StepBatch batch;
    StepSequence& s = batch.add_sequence();
    s.num_rows = options_.prefill;
    for (uint32_t i = 0; i < options_.prefill; ++i) {
      s.tokens.push_back(static_cast<TokenId>((i * 7919 + 13) % model_->config().vocab_size));
    }
    s.block_table = table(0);
    batch.opens.push_back({.slot = SlotId{0}, .params = {.temperature = 0}});
    batch.samples.push_back({.sequence = 0, .slot = SlotId{0}});
    seconds(batch);
    std::vector<double> rates;
    for (uint32_t r = 0; r < options_.runs; ++r) rates.push_back(options_.prefill / seconds(batch));
    return median(rates);
  }

  // Sequences that stand at `context` tokens, each drawing greedily. What the cache holds does not
  // change the work.
  double decode_tokens_per_second(uint32_t sequences) {
    StepBatch batch;
    for (uint32_t i = 0; i < sequences; ++i) {
      StepSequence& s = batch.add_sequence();
      s.position = options_.context;
      s.num_rows = 1;
      s.last_of = SlotId{i};
      s.block_table = table(i);
      batch.opens.push_back({.slot = SlotId{i},
                             .params = {.temperature = 0},
                             .tokens = {static_cast<TokenId>(i + 5)}});
      batch.samples.push_back({.sequence = i, .slot = SlotId{i}});
    }
    std::vector<double> rates;
    for (uint32_t r = 0; r <= options_.runs; ++r) {
      double spent = 0;
      for (StepSequence& s : batch.sequences) s.position = options_.context;
      for (uint32_t step = 0; step < options_.steps; ++step) {
        spent += seconds(batch);
        batch.opens.clear();
        for (StepSequence& s : batch.sequences) ++s.position;
      }
      if (r > 0) rates.push_back(sequences * options_.steps / spent);  // the first warms up
    }
    return median(rates);
  }

  const Options options_;
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<model::Model> model_;
  device::Buffer memory_;
  std::unique_ptr<StepRunner> runner_;
  uint32_t blocks_each_ = 0;
  double load_seconds_ = 0;
};

}  // namespace
}  // namespace baton::engine

int main(int argc, char** argv) {
  baton::engine::Options options;
  CLI::App app("Speed of the engine alone");
  app.add_option("--model", options.model, "GGUF file or Hugging Face directory")->required();
  app.add_option("--threads", options.threads, "threads of the device");
  app.add_option("--prefill", options.prefill, "tokens of the prompt");
  app.add_option("--decode-batch", options.decode_batch, "sequences decoded together")
      ->delimiter(',');
  app.add_option("--context", options.context, "tokens before the decoded ones");
  app.add_option("--steps", options.steps, "decode steps a run");
  app.add_option("--runs", options.runs, "runs a figure is the median of");
  app.add_option("--dtype", options.dtype, "of weights and cache")
      ->check(CLI::IsMember({"bf16", "f32"}));
  CLI11_PARSE(app, argc, argv);
  std::cout << baton::engine::Bench(options).run() << "\n";
}
