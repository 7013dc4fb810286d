// What the GPU can do, and how near the operations and whole steps of a Llama-3-8B-shaped model
// with random weights come to it. Prints lines for people and writes JSON for
// scripts/bench/gpu_report.py.
//   gpu_bench --json OUT [--quick] [--dtype f16] [--only
//   roofs,products,attention,elementwise,steps,deterministic,gaps]
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <set>

#include "common/base/clock.h"
#include "tests/gpu/attention_bench.h"
#include "tests/gpu/model_bench.h"
#include "tests/gpu/ops_bench.h"
#include "tests/model/random_weights.h"

namespace baton::gpu {
namespace {

// Kept free beside the cache: what steps of 8192 rows work in, scratch, a second stream's handles.
constexpr size_t kKeepFree = size_t{10} << 30;
constexpr size_t kMostTokens = 64 * 8192 + 4096;  // of the cache

json::object facts() {
  const GpuFacts f = gpu_facts();
  return {{"name", f.name},
          {"multiprocessors", f.multiprocessors},
          {"compute", fmt::format("{}.{}", f.compute_major, f.compute_minor)},
          {"driver_cuda", f.driver_version},
          {"runtime_cuda", f.runtime_version},
          {"memory_bytes", f.memory_bytes},
          {"l2_bytes", f.l2_bytes}};
}

class Bench {
 public:
  Bench(bool quick, DType half, uint32_t block_tokens, std::set<std::string> only, std::string path)
      : lab_(quick, half),
        block_tokens_(block_tokens),
        only_(std::move(only)),
        path_(std::move(path)) {
    all_["gpu"] = facts();
    all_["quick"] = quick;
    all_["dtype"] = name(half);
    all_["layers"] = lab_.config.num_layers;
  }

  void run() {
    note("roofs", measure_roofs(lab_));  // the others stand beside them
    Parts parts;
    if (wants("products") || wants("elementwise") || wants("attention") || wants("steps")) {
      fast_parts(parts);
    }
    if (wants("deterministic")) {
      const auto model = make_model(lab_, lab_.deterministic, weights());
      const BenchCache cache(lab_, block_tokens_, kMostTokens, kKeepFree);
      note("deterministic_decode",
           measure_decode(lab_, *model, lab_.deterministic, cache, parts, true));
      note("deterministic_prefill", measure_prefill(lab_, *model, cache, parts));
    }
    if (wants("gaps")) {  // last: what looks on makes everything slower
      const auto model = make_model(lab_, lab_.fast, weights());
      const BenchCache cache(lab_, block_tokens_, kMostTokens, kKeepFree);
      note("gaps", measure_gaps(lab_, *model, lab_.fast, cache));
    }
  }

 private:
  bool wants(const std::string& part) const { return only_.empty() || only_.contains(part); }

  model::Weights weights() {
    const TimePoint start = Clock::now();
    model::Weights made = model::random_weights(lab_.config, *lab_.device, lab_.fast, 7).value();
    say(fmt::format("weights in {:.1f} s", to_seconds(Clock::now() - start)));
    return made;
  }

  void fast_parts(Parts& parts) {
    model::Weights made = weights();
    if (wants("products")) note("products", measure_products(lab_, made, &parts));
    const BenchCache cache(lab_, block_tokens_, kMostTokens, kKeepFree);
    say(fmt::format("a cache of {} tokens", cache.max_tokens()));
    all_["cache_tokens"] = cache.max_tokens();
    if (wants("elementwise")) {
      note("elementwise", measure_elementwise(lab_, made, cache, &parts));
    }
    if (wants("attention")) {
      note("decode_attention", measure_decode_attention(lab_, cache, &parts));
      note("prefill_attention", measure_prefill_attention(lab_, cache, &parts));
    }
    if (!wants("steps")) return;
    const auto model = make_model(lab_, lab_.fast, std::move(made));
    note("decode", measure_decode(lab_, *model, lab_.fast, cache, parts, false));
    note("prefill", measure_prefill(lab_, *model, cache, parts));
  }

  // Written after each part: what follows may fail.
  void note(const std::string& part, json::value found) {
    all_[part] = std::move(found);
    all_["seconds_so_far"] = to_seconds(Clock::now() - start_);
    if (path_.empty()) return;
    std::ofstream out(path_);
    out << all_ << "\n";
    if (!out.flush()) throw std::runtime_error("cannot write " + path_);
  }

  const TimePoint start_ = Clock::now();
  Lab lab_;
  const uint32_t block_tokens_;
  const std::set<std::string> only_;
  const std::string path_;
  json::object all_;
};

}  // namespace
}  // namespace baton::gpu

int main(int argc, char** argv) {
  std::string path;
  std::vector<std::string> only;
  std::string dtype = "bf16";
  bool quick = false;
  uint32_t block_tokens = 64;
  CLI::App app("Speed on a GPU, beside what the GPU can do");
  app.add_option("--json", path, "file to write");
  app.add_option("--only", only, "parts to measure")
      ->delimiter(',')
      ->check(CLI::IsMember(
          {"roofs", "products", "attention", "elementwise", "steps", "deterministic", "gaps"}));
  app.add_flag("--quick", quick, "8 layers, fewer shapes, fewer repeats");
  app.add_option("--dtype", dtype, "of weights, activations and cache")
      ->capture_default_str()
      ->check(CLI::IsMember({"bf16", "f16"}));
  app.add_option("--block-tokens", block_tokens, "tokens in a KV block")
      ->capture_default_str()
      ->check(CLI::IsMember({16u, 32u, 64u, 128u, 256u}));
  CLI11_PARSE(app, argc, argv);
  try {
    const baton::DType half = dtype == "f16" ? baton::DType::kF16 : baton::DType::kBF16;
    baton::gpu::Bench(quick, half, block_tokens, {only.begin(), only.end()}, path).run();
  } catch (const std::exception& e) {
    fmt::print(stderr, "gpu_bench: {}\n", e.what());
    return 1;
  }
}
