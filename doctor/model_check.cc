#include "doctor/model_check.h"

#include <fmt/format.h>

#include "common/formats/model_files.h"
#include "common/kvcache/layout.h"
#include "common/text/tokenizer.h"

namespace baton::doctor {
namespace {

constexpr double kGib = 1 << 30;

void judge_cache(const ModelFacts& facts, uint64_t kv_bytes, Report& report) {
  const uint64_t tokens = kv_bytes / facts.kv_bytes_per_token;
  const std::string found = fmt::format(
      "{:.1f} GiB hold {} tokens of {} bytes; a sequence has up to {}",
      static_cast<double>(kv_bytes) / kGib, tokens, facts.kv_bytes_per_token, facts.max_position);
  if (tokens < facts.max_position) {
    report.warn("KV cache", found,
                "raise --kv-gib, or lower --max-context: the longest requests will be refused");
  } else {
    report.fine("KV cache", found);
  }
}

}  // namespace

std::optional<ModelFacts> check_model(const std::filesystem::path& path, DType dtype,
                                      uint64_t kv_bytes, Report& report) {
  const auto files = formats::ModelFiles::open(path);
  if (!files) {
    report.fail("model", files.error().message,
                "give --model a GGUF file or a directory in Hugging Face form, whole");
    return std::nullopt;
  }
  const formats::ModelConfig& config = files->config();
  ModelFacts facts{.max_position = config.max_position};
  for (const formats::TensorView& t : files->tensors().tensors()) {
    facts.weight_bytes += t.elements() * size_bytes(dtype);
  }
  constexpr uint32_t kBlock = 16;
  facts.kv_bytes_per_token = kvcache::KvLayout::full_kv(config.num_layers, config.num_kv_heads,
                                                        config.head_dim, dtype, kBlock)
                                 .block_bytes() /
                             kBlock;
  report.fine("model", fmt::format("{}: {} layers, {} heads over {}, {:.2f} GiB as {}",
                                   path.filename().string(), config.num_layers, config.num_heads,
                                   config.num_kv_heads,
                                   static_cast<double>(facts.weight_bytes) / kGib, name(dtype)));
  judge_cache(facts, kv_bytes, report);
  if (const auto tokenizer = text::Tokenizer::load(path); tokenizer) {
    report.fine("tokenizer", fmt::format("{} tokens", config.vocab_size));
  } else {
    report.fail("tokenizer", tokenizer.error().message,
                "a router needs it: take it from where the weights are from");
  }
  return facts;
}

}  // namespace baton::doctor
