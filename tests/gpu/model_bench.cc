#include "tests/gpu/model_bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/base/clock.h"
#include "common/engine/step_runner.h"
#include "tests/gpu/attention_bench.h"
#include "tests/gpu/kernel_trace.h"

namespace baton::gpu {
namespace {

constexpr uint32_t kMostRows = 8192, kMostSequences = 128;

class Nobody final : public model::LayerObserver, public engine::StepObserver {
 public:
  void layer_done(device::Stream&, uint32_t) override {}
  void on_layer(engine::StepBatch&, uint32_t) override {}
};

// A batch for Model::forward; the last row of each sequence is an output.
struct PassBatch {
  PassBatch(const Lab& lab, const BenchSequences& of) : sequences(of.host()) {
    for (uint32_t s = 0; s < sequences.size(); ++s) {
      const ops::SequenceRows& rows = sequences[s];
      for (uint32_t r = 0; r < rows.num_rows; ++r) {
        const size_t i = tokens.size();
        tokens.push_back(static_cast<TokenId>((i * 7919 + 13) % lab.config.vocab_size));
        positions.push_back(rows.position + r);
      }
      outputs.push_back({s, rows.num_rows - 1, 1});
    }
  }
  model::ForwardBatch get() const {
    return {.tokens = tokens, .positions = positions, .sequences = sequences, .outputs = outputs};
  }

  std::vector<TokenId> tokens;
  std::vector<uint32_t> positions;
  std::vector<ops::SequenceRows> sequences;
  std::vector<model::OutputRows> outputs;
};

// Forward and head.
void pass(Lab& lab, model::Model& model, const BenchCache& cache, const PassBatch& batch,
          model::LayerObserver* observer) {
  model.forward(*lab.stream, batch.get(), cache.cache(), observer);
  model.logits(*lab.stream, 0, static_cast<uint32_t>(batch.outputs.size()));
}

// Steps as the engine runs them, one behind the other.
class EngineSteps {
 public:
  EngineSteps(Lab& lab, model::Model& model, const ops::Ops& ops, const BenchCache& cache,
              uint32_t sequences, uint32_t context)
      : steps(lab.quick ? 8 : 16),
        context_(context),
        runner_(engine::StepRunner::create(
                    model, {cache.cache(), cache.cache()}, *lab.device, ops,
                    {kMostRows, kMostSequences, kMostSequences, model.max_context()})
                    .value()) {
    for (uint32_t s = 0; s < sequences; ++s) tables_.push_back(cache.table(s, context));
    run(true);  // warms up
  }

  const uint32_t steps;  // of a run
  void run() { run(false); }

 private:
  void run(bool first) {
    for (uint32_t step = 0; step < steps; ++step) {
      engine::StepBatch& batch = batches_[step % batches_.size()];
      while (!runner_->can_begin(batch)) runner_->finish();
      fill(batch, step, first && step == 0);
      runner_->begin(batch, nobody_);
    }
    while (runner_->in_flight() > 0) runner_->finish();
  }
  void fill(engine::StepBatch& batch, uint32_t step, bool opens) {
    batch.clear();
    for (uint32_t s = 0; s < tables_.size(); ++s) {
      engine::StepSequence& sequence = batch.add_sequence();
      sequence.position = context_ - steps + step;
      sequence.num_rows = 1;
      sequence.last_of = SlotId{s};
      sequence.block_table = tables_[s];
      if (opens) {
        sequence.tokens = {static_cast<TokenId>(s + 5)};
        batch.opens.push_back({.slot = SlotId{s},
                               .params = {.temperature = 0},
                               .tokens = sequence.tokens,
                               .prompt_tokens = 1});
      }
      batch.samples.push_back({.sequence = s, .slot = SlotId{s}});
    }
  }

  const uint32_t context_;
  std::unique_ptr<engine::StepRunner> runner_;
  std::array<engine::StepBatch, engine::StepRunner::kMaxSteps> batches_;
  std::vector<std::vector<BlockId>> tables_;
  Nobody nobody_;
};

// By the host's clock: seconds of a step, from the end of the one before to its own.
Spread measure_engine(Lab& lab, EngineSteps engine) {
  std::vector<double> seconds;
  for (uint32_t i = 0; i < lab.repeats; ++i) {
    const TimePoint start = Clock::now();
    engine.run();
    seconds.push_back(to_seconds(Clock::now() - start) / engine.steps);
  }
  return spread_of(std::move(seconds));
}

// Of decode steps that are measured.
template <class Visit>
void each_shape(const Lab& lab, const BenchCache& cache, bool deterministic, const Visit& visit) {
  std::vector<uint32_t> batches = {1, 8, 64, 128}, contexts = {1024, 4096, 8192};
  if (lab.quick) batches = {1, 64}, contexts = {1024, 4096};
  if (deterministic) contexts = {1024, 4096};
  for (const uint32_t batch : batches) {
    for (const uint32_t context : contexts) {
      if (cache.fits(batch, context)) visit(batch, context);
    }
  }
}

// What a decode step's parts come to.
struct Sums {
  double alone = 0;   // as measured one by one
  double bound = 0;   // bytes over the read bandwidth, or cuBLASLt's own time where that is more
  double strict = 0;  // bytes over the read bandwidth, or FLOP over cuBLASLt's rate for 8192^3
  bool complete = true;
};
Sums sum_parts(const Lab& lab, const Parts& parts, uint32_t batch, uint32_t context,
               bool deterministic) {
  Sums sums;
  const auto add = [&](const std::string& name, double times) {
    const auto at = parts.find({name, batch});
    if (at == parts.end()) {
      sums.complete = false;
      return;
    }
    const Part& p = at->second;
    const double read = p.bytes / lab.roofs.read_bytes_s;
    sums.alone += times * (deterministic ? p.deterministic : p.seconds);
    sums.bound += times * std::max(read, p.cublas);
    sums.strict += times * std::max(read, p.flop / lab.roofs.blas_flop_s);
  };
  const double layers = lab.config.num_layers;
  for (const char* name : {"qkv", "o", "gate_up", "down", "rope_kv", "silu_mul"}) {
    add(name, layers);
  }
  add("rms_norm", 2 * layers + 1);
  add(attention_name(context), layers);
  add("embed", 1);
  add("head", 1);
  return sums;
}

}  // namespace

std::unique_ptr<model::Model> make_model(Lab& lab, const ops::Ops& ops, model::Weights weights) {
  return model::Model::create(lab.config, std::move(weights), *lab.device, ops,
                              {.weights = lab.half,
                               .cache = lab.half,
                               .max_rows = kMostRows,
                               .max_sequences = kMostSequences,
                               .max_samples = kMostSequences,
                               .max_context = 16384,
                               .max_logit_bytes = size_t{256} << 20})
      .value();
}

json::array measure_decode(Lab& lab, model::Model& model, const ops::Ops& ops,
                           const BenchCache& cache, const Parts& parts, bool deterministic) {
  json::array found;
  each_shape(lab, cache, deterministic, [&](uint32_t batch, uint32_t context) {
    const BenchSequences sequences(lab, cache, batch, 1, context - 1);
    const PassBatch rows(lab, sequences);
    Nobody nobody;
    const auto time = [&](model::LayerObserver* observer) {
      return time_called(*lab.stream, lab.repeats,
                         [&](uint32_t) { pass(lab, model, cache, rows, observer); });
    };
    const Spread graph = time(nullptr);
    // Somebody who looks at the layers keeps the pass from being recorded.
    const Spread eager = deterministic ? Spread{} : time(&nobody);
    const Spread step = measure_engine(lab, EngineSteps(lab, model, ops, cache, batch, context));
    const Sums sums = sum_parts(lab, parts, batch, context, deterministic);
    say(fmt::format(
        "step of {:3} x {:4} tokens: {:7.3f} ms, graph {:7.3f}, eager {:7.3f}; parts "
        "alone {:7.3f}, bound {:7.3f} ({:4.2f}x), strict {:7.3f}",
        batch, context, step.median * 1e3, graph.median * 1e3, eager.median * 1e3, sums.alone * 1e3,
        sums.bound * 1e3, step.median / sums.bound, sums.strict * 1e3));
    found.push_back(json::object{{"batch", batch},
                                 {"context", context},
                                 {"step", to_json(step)},
                                 {"graph", to_json(graph)},
                                 {"eager", to_json(eager)},
                                 {"parts_alone_s", sums.alone},
                                 {"bound_s", sums.bound},
                                 {"strict_bound_s", sums.strict},
                                 {"complete", sums.complete}});
  });
  return found;
}

json::array measure_gaps(Lab& lab, model::Model& model, const ops::Ops& ops,
                         const BenchCache& cache) {
  json::array found;
  each_shape(lab, cache, false, [&](uint32_t batch, uint32_t context) {
    EngineSteps engine(lab, model, ops, cache, batch, context);
    const auto busy = trace_kernels([&] { engine.run(); });
    if (!busy) return;
    const double each = busy->span_s / engine.steps;
    say(fmt::format(
        "step of {:3} x {:4} tokens, traced: {:7.3f} ms, {} kernels, GPU idle {:4.1f} %", batch,
        context, each * 1e3, busy->kernels / engine.steps, busy->idle_share() * 100));
    found.push_back(json::object{{"batch", batch},
                                 {"context", context},
                                 {"traced_s", each},
                                 {"kernels", busy->kernels / engine.steps},
                                 {"idle", busy->idle_share()}});
  });
  return found;
}

json::array measure_prefill(Lab& lab, model::Model& model, const BenchCache& cache,
                            const Parts& parts) {
  const formats::ModelConfig& c = lab.config;
  const double q = 1.0 * c.num_heads * c.head_dim, kv = 2.0 * c.num_kv_heads * c.head_dim;
  json::array found;
  for (const uint32_t rows : {2048u, 4096u, 8192u}) {
    if (!cache.fits(1, rows)) continue;
    const BenchSequences sequences(lab, cache, 1, rows, 0);
    const PassBatch batch(lab, sequences);
    const Spread s = time_called(*lab.stream, lab.repeats,
                                 [&](uint32_t) { pass(lab, model, cache, batch, nullptr); });
    // Behind the last layer's K and V only the last row goes on.
    const double pairs = rows * (rows + 1.0) / 2, all_layers = c.num_layers - 1.0;
    const double rest = 2 * (q * c.hidden + 3.0 * c.hidden * c.intermediate);
    const double attention = all_layers * 4 * q * pairs;
    const double flop = c.num_layers * 2.0 * rows * c.hidden * (q + kv) +
                        (all_layers * rows + 1) * rest + attention + 2.0 * c.hidden * c.vocab_size;
    const double of_blas = flop / s.median / lab.roofs.blas_flop_s;
    const auto part = parts.find({"prefill_attention", rows});
    const double attention_s = part == parts.end() ? 0 : all_layers * part->second.seconds;
    say(fmt::format(
        "prefill of {} tokens: {:8.3f} ms, {:5.0f} TFLOP/s, {:3.0f} % of 8192^3; "
        "attention alone {:8.3f}",
        rows, s.median * 1e3, flop / s.median * 1e-12, of_blas * 100, attention_s * 1e3));
    found.push_back(json::object{{"rows", rows},
                                 {"seconds", to_json(s)},
                                 {"flop", flop},
                                 {"of_blas", of_blas},
                                 {"attention_alone_s", attention_s}});
  }
  return found;
}

}  // namespace baton::gpu
