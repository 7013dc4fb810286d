#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/fakes/gguf_writer.h"

namespace baton::fakes {

// A byte-level BPE vocabulary of 320 tokens: id b is byte b, 256..316 are pairs of letters ("ba",
// "be", ...), and then <|endoftext|> 317, <|im_start|> 318 and <|im_end|> 319.
struct ToyTokenizer {
  std::vector<std::string> tokens;  // in the byte-to-Unicode alphabet of GPT-2
  std::vector<std::string> merges;  // "b a"
  std::string chat_template;        // ChatML
};

inline constexpr uint32_t kToyVocabSize = 320;
inline constexpr int32_t kToyBosId = 317, kToyImStartId = 318, kToyEosId = 319;

ToyTokenizer toy_tokenizer();

// The tokenizer.ggml.* keys, padded to `vocab_size` tokens; that is at least kToyVocabSize.
void add_toy_tokenizer(GgufWriter* writer, uint32_t vocab_size, bool add_bos = false);

// tokenizer.json and tokenizer_config.json.
std::string toy_tokenizer_json();
std::string toy_tokenizer_config_json(bool add_bos = false);

}  // namespace baton::fakes
