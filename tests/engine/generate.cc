// Greedy generation by one engine in this process, several prompts at once, for comparison with
// another implementation token by token.
//   generate --model PATH --device cuda --prompt-ids FILE --max-tokens 32 --json OUT
// FILE has one prompt a line: token ids with spaces (or commas) between. Prints the ids drawn for
// each, and the time of a step. With --score nothing is drawn: each line's own ids are scored, as
// the model would have drawn them.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/device/cpu/cpu_device.h"
#include "common/device/cuda/cuda_device.h"
#include "common/engine/step_runner.h"
#include "common/formats/model_files.h"
#include "common/model/model.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/ops/cuda/cuda_ops.h"

namespace baton::engine {
namespace {

struct Options {
  std::string model, device = "cpu", prompt_ids, json;
  bool deterministic = false, logits = false, score = false;
  uint32_t max_tokens = 32;
  uint32_t chunk = 512;  // rows of a prompt in one step
  uint32_t max_rows = 1024;
  uint32_t block_tokens = 16;
  unsigned threads = 2;
  std::string dtype = "bf16";  // of weights and cache: bf16, f16 on a GPU, f32 on the CPU
};

struct Prompt {
  std::vector<TokenId> ids;
  std::vector<BlockId> table;
  std::vector<ops::SampleResult> results;  // drawn, or scored
  uint32_t computed = 0;                   // tokens whose rows were planned
  uint32_t planned = 0;                    // draws
};

struct StepTime {
  uint32_t rows, sequences;
  double seconds;
};

std::vector<Prompt> read_prompts(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<Prompt> prompts;
  for (std::string line; std::getline(file, line);) {
    std::replace(line.begin(), line.end(), ',', ' ');
    std::istringstream words(line);
    Prompt p;
    for (TokenId id; words >> id;) p.ids.push_back(id);
    if (!words.eof()) throw std::runtime_error(path + ": not a token id in: " + line);
    if (!p.ids.empty()) prompts.push_back(std::move(p));
  }
  if (prompts.empty()) throw std::runtime_error(path + " holds no prompt");
  return prompts;
}

class Generator final : private StepObserver {
 public:
  explicit Generator(const Options& o) : options_(o), prompts_(read_prompts(o.prompt_ids)) {
    const DType dtype = o.dtype == "f32"   ? DType::kF32
                        : o.dtype == "f16" ? DType::kF16
                                           : DType::kBF16;
    if (o.device == "cuda") {
      device_ = device::make_cuda_device(0).value();
      ops_ = ops::cuda_ops({.half = dtype, .deterministic = o.deterministic}).value();
    } else {
      device_ = device::make_cpu_device(o.threads);
      ops_ = ops::cpu_ops();
    }
    const formats::ModelFiles files = formats::ModelFiles::open(o.model).value();
    const auto count = static_cast<uint32_t>(prompts_.size());
    const uint32_t rows = std::max(o.max_rows, count);
    model_ = model::Model::load(files, *device_, ops_,
                                {.weights = dtype,
                                 .cache = dtype,
                                 .max_rows = rows,
                                 .max_sequences = count,
                                 .max_samples = count})
                 .value();
    check_ids();
    const kvcache::KvLayout layout = model_->kv_layout(o.block_tokens);
    const uint32_t blocks = hand_out_blocks(layout);
    memory_ = device_->allocate(layout.block_bytes() * blocks).value();
    const auto cache =
        kvcache::KvCache::create({memory_.data(), memory_.bytes()}, layout, blocks).value();
    runner_ = StepRunner::create(*model_, {cache, cache}, *device_, ops_,
                                 {rows, count, count, model_->max_context()})
                  .value();
  }

  void run() {
    if (options_.score) {
      for (Prompt& p : prompts_) score(p);
    } else {
      generate();
    }
    print();
    if (!options_.json.empty()) write_json();
  }

 private:
  void on_layer(StepBatch&, uint32_t) override {}

  void check_ids() const {
    for (const Prompt& p : prompts_) {
      if (p.ids.size() + options_.max_tokens > model_->max_context()) {
        throw std::runtime_error(fmt::format("{} tokens and {} drawn are beyond the context of {}",
                                             p.ids.size(), options_.max_tokens,
                                             model_->max_context()));
      }
      for (const TokenId id : p.ids) {
        if (id < 0 || static_cast<uint32_t>(id) >= model_->config().vocab_size) {
          throw std::runtime_error(fmt::format("token {} is not in the vocabulary", id));
        }
      }
    }
  }

  // Blocks of different prompts lie among each other, as they do in a worker. How many there are.
  uint32_t hand_out_blocks(const kvcache::KvLayout& layout) {
    uint32_t next = 0;
    for (bool more = true; more;) {
      more = false;
      for (Prompt& p : prompts_) {
        const auto tokens = static_cast<uint32_t>(p.ids.size()) + options_.max_tokens;
        if (p.table.size() == layout.blocks_for(tokens)) continue;
        p.table.push_back(BlockId{next++});
        more = true;
      }
    }
    return next;
  }

  // Decode rows first, then prompts in chunks as far as the step has room.
  void plan(StepBatch& batch, std::vector<uint32_t>& drawing) {
    batch.clear();
    drawing.clear();
    uint32_t left = std::max<uint32_t>(options_.max_rows, static_cast<uint32_t>(prompts_.size()));
    for (const bool decode : {true, false}) {
      for (uint32_t i = 0; i < prompts_.size(); ++i) {
        Prompt& p = prompts_[i];
        const auto known = static_cast<uint32_t>(p.ids.size());
        const bool drew_now = std::find(drawing.begin(), drawing.end(), i) != drawing.end();
        if ((p.computed >= known) != decode || p.planned == options_.max_tokens || drew_now) {
          continue;
        }
        const uint32_t rows = decode ? 1 : std::min({options_.chunk, known - p.computed, left});
        if (rows == 0) continue;
        add_rows(batch, p, i, rows);
        left -= rows;
        if (p.computed < known) continue;
        ++p.planned;
        drawing.push_back(i);
        batch.samples.push_back(
            {.sequence = static_cast<uint32_t>(batch.sequences.size() - 1), .slot = SlotId{i}});
      }
    }
  }

  void add_rows(StepBatch& batch, Prompt& p, uint32_t slot, uint32_t rows) {
    StepSequence& s = batch.add_sequence();
    s.position = p.computed;
    s.num_rows = rows;
    s.block_table = p.table;
    s.last_of = SlotId{slot};
    const auto known = static_cast<uint32_t>(p.ids.size());
    if (p.computed < known) {
      s.tokens.assign(p.ids.begin() + p.computed, p.ids.begin() + p.computed + rows);
    }
    p.computed += rows;
    if (p.computed != known) return;
    ops::SamplingParams greedy = {.temperature = 0, .logprobs = 2};
    greedy.want_logprobs = options_.logits;
    batch.opens.push_back(
        {.slot = SlotId{slot}, .params = greedy, .tokens = p.ids, .prompt_tokens = known});
  }

  void generate() {
    std::array<StepBatch, StepRunner::kMaxSteps> batches;
    std::array<std::vector<uint32_t>, StepRunner::kMaxSteps> drawing;
    uint32_t begun = 0, done = 0;
    TimePoint last = Clock::now();
    const auto finish = [&] {
      runner_->finish();
      const StepBatch& batch = batches[done % batches.size()];
      for (size_t i = 0; i < batch.samples.size(); ++i) {
        prompts_[drawing[done % batches.size()][i]].results.push_back(batch.samples[i].result);
      }
      const TimePoint now = Clock::now();
      steps_.push_back({batch.num_rows(), static_cast<uint32_t>(batch.sequences.size()),
                        to_seconds(now - last)});
      last = now;
      ++done;
    };
    for (;;) {
      if (begun - done == batches.size()) finish();
      StepBatch& batch = batches[begun % batches.size()];
      plan(batch, drawing[begun % batches.size()]);
      if (batch.empty()) break;
      while (!runner_->can_begin(batch)) finish();
      runner_->begin(batch, *this);
      ++begun;
    }
    while (done < begun) finish();
  }

  void score(Prompt& p) {
    const auto known = static_cast<uint32_t>(p.ids.size());
    while (p.computed < known) {
      const uint32_t rows = std::min({options_.chunk, options_.max_rows, known - p.computed});
      StepBatch batch;
      StepSequence& s = batch.add_sequence();
      s.position = p.computed;
      s.num_rows = rows;
      s.block_table = p.table;
      s.tokens.assign(p.ids.begin() + p.computed, p.ids.begin() + p.computed + rows);
      s.prompt_logprobs = 2;
      const uint32_t end = std::min(p.computed + rows + 1, known);
      s.next_tokens.assign(p.ids.begin() + p.computed + 1, p.ids.begin() + end);
      const TimePoint start = Clock::now();
      runner_->run(batch, *this);
      steps_.push_back({rows, 1, to_seconds(Clock::now() - start)});
      const auto& scores = batch.sequences[0].scores;
      p.results.insert(p.results.end(), scores.begin(), scores.end());
      p.computed += rows;
    }
  }

  // Median of the steps that only decode, all prompts at once; the first also records its graph.
  double decode_seconds() const {
    std::vector<double> seconds;
    for (const StepTime& s : steps_) {
      if (s.rows == prompts_.size() && s.sequences == s.rows) seconds.push_back(s.seconds);
    }
    if (seconds.empty()) return 0;
    std::nth_element(seconds.begin(), seconds.begin() + seconds.size() / 2, seconds.end());
    return seconds[seconds.size() / 2];
  }

  void print() const {
    for (const Prompt& p : prompts_) {
      std::string line;
      for (const ops::SampleResult& r : p.results) line += fmt::format("{} ", r.token);
      fmt::print("{}\n", line);
      if (!options_.logits) continue;
      std::string gaps;
      for (const ops::SampleResult& r : p.results) {
        gaps += fmt::format("{:.4f} ", r.num_top < 2 ? 0 : r.top[0].logprob - r.top[1].logprob);
      }
      fmt::print("  gaps {}\n", gaps);
    }
    fmt::print(stderr, "{}, {} steps, {:.3f} ms for a decode step of {}\n", model_->numerics(),
               steps_.size(), decode_seconds() * 1e3, prompts_.size());
  }

  void write_json() const {
    std::ofstream out(options_.json);
    out << fmt::format("{{\"device\": \"{}\", \"numerics\": \"{}\", \"decode_s\": {},\n",
                       options_.device, model_->numerics(), decode_seconds());
    out << " \"prompts\": [";
    for (size_t i = 0; i < prompts_.size(); ++i) {
      out << (i == 0 ? "\n" : ",\n") << "  {\"results\": [";
      const auto& results = prompts_[i].results;
      for (size_t j = 0; j < results.size(); ++j) {
        const ops::SampleResult& r = results[j];
        std::string top;
        for (uint32_t t = 0; t < r.num_top; ++t) {
          top += fmt::format("{}[{}, {}]", t == 0 ? "" : ", ", r.top[t].token, r.top[t].logprob);
        }
        out << fmt::format("{}{{\"token\": {}, \"logprob\": {}, \"top\": [{}]}}",
                           j == 0 ? "" : ", ", r.token, r.logprob, top);
      }
      out << "]}";
    }
    out << "],\n \"steps\": [";
    for (size_t i = 0; i < steps_.size(); ++i) {
      out << fmt::format("{}[{}, {}, {}]", i == 0 ? "" : ", ", steps_[i].rows, steps_[i].sequences,
                         steps_[i].seconds);
    }
    out << "]}\n";
    if (!out.flush()) throw std::runtime_error("cannot write " + options_.json);
  }

  const Options options_;
  std::vector<Prompt> prompts_;
  std::unique_ptr<device::Device> device_;
  ops::Ops ops_;
  std::unique_ptr<model::Model> model_;
  device::Buffer memory_;
  std::unique_ptr<StepRunner> runner_;
  std::vector<StepTime> steps_;
};

}  // namespace
}  // namespace baton::engine

int main(int argc, char** argv) {
  baton::engine::Options o;
  CLI::App app("Greedy generation for comparison");
  app.add_option("--model", o.model, "GGUF file or Hugging Face directory")->required();
  app.add_option("--device", o.device)->check(CLI::IsMember({"cpu", "cuda"}));
  app.add_option("--prompt-ids", o.prompt_ids, "file of token ids, a prompt a line")->required();
  app.add_option("--max-tokens", o.max_tokens, "to draw for each prompt");
  app.add_option("--chunk", o.chunk, "rows of a prompt in one step")->check(CLI::PositiveNumber);
  app.add_option("--max-rows", o.max_rows, "rows of a step")->check(CLI::PositiveNumber);
  app.add_option("--block-tokens", o.block_tokens, "tokens of a block of the cache");
  app.add_option("--threads", o.threads, "threads of the CPU");
  app.add_option("--dtype", o.dtype, "of weights and cache")
      ->check(CLI::IsMember({"bf16", "f16", "f32"}));
  app.add_option("--json", o.json, "file to write");
  app.add_flag("--deterministic", o.deterministic, "the same bits in any batch");
  app.add_flag("--logits", o.logits, "the two likeliest at each place, and how far apart");
  app.add_flag("--score", o.score, "score the lines' own ids instead of drawing");
  CLI11_PARSE(app, argc, argv);
  if (o.score) o.max_tokens = 0;
  try {
    baton::engine::Generator(o).run();
  } catch (const std::exception& e) {
    fmt::print(stderr, "generate: {}\n", e.what());
    return 1;
  }
}
