#include <benchmark/benchmark.h>
#include <gtest/gtest.h>

#include "common/text/tokenizer.h"
#include "tests/text/random_text.h"

namespace baton::text {
namespace {

constexpr size_t kBytes = 100'000;

std::string repeated(std::string_view part) {
  std::string out;
  while (out.size() < kBytes) out += part;
  return out;
}

std::string mixed() {
  const RandomTexts texts("bench");
  std::string out;
  for (uint64_t i = 1'000; out.size() < kBytes; ++i) out += texts.text(i);
  return out;
}

void encode(benchmark::State& state, const char* family, const std::string& text) {
  const char* model = std::getenv("BATON_TEST_MODEL");
  const auto tokenizer = Tokenizer::load(model != nullptr ? model : data_path(family).string());
  for (auto _ : state) benchmark::DoNotOptimize(tokenizer->encode(text)->size());
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * text.size()));
}

BENCHMARK_CAPTURE(encode, prose, "llama3",
                  repeated("The quick brown fox jumps over the lazy dog, and the water runs. "));
BENCHMARK_CAPTURE(encode, mixed, "llama3", mixed());
BENCHMARK_CAPTURE(encode, mixed_nfc, "qwen2", mixed());
BENCHMARK_CAPTURE(encode, letters, "llama3", std::string(kBytes, 'a'));
BENCHMARK_CAPTURE(encode, spaces, "llama3", std::string(kBytes, ' '));
BENCHMARK_CAPTURE(encode, spaces_then_letter, "llama3", std::string(kBytes, ' ') + "a");
BENCHMARK_CAPTURE(encode, newlines, "qwen2", std::string(kBytes, '\n'));
BENCHMARK_CAPTURE(encode, digits, "llama3", std::string(kBytes, '1'));
BENCHMARK_CAPTURE(encode, punctuation, "tekken", std::string(kBytes, '!'));
BENCHMARK_CAPTURE(encode, cjk, "qwen2", repeated("日本語"));
BENCHMARK_CAPTURE(encode, capitals, "tekken", std::string(kBytes, 'A'));
BENCHMARK_CAPTURE(encode, marks, "qwen2", repeated("\u0301") + repeated("\u0316"));
BENCHMARK_CAPTURE(encode, sentencepiece, "llama2", repeated("under stand ing"));
BENCHMARK_CAPTURE(encode, half_tokens, "llama3", repeated("<|reserved_special_token_"));

}  // namespace
}  // namespace baton::text
