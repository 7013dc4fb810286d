#include "tests/fakes/toy_tokenizer.h"

#include <boost/json.hpp>
#include <stdexcept>
#include <string_view>

namespace baton::fakes {
namespace {

namespace json = boost::json;

constexpr int kNumBytes = 256, kNumPairs = 61;
constexpr std::string_view kFirst = "bcdfghjklmnpqrst", kSecond = "aeio";
constexpr std::string_view kSpecial[] = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
constexpr int32_t kNormal = 1, kControl = 3, kUnused = 5;  // GGUF's token types

std::string utf8(int code_point) {  // under U+0800
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// GPT-2's alphabet: a byte that prints stands for itself, the others follow from U+0100 on.
std::vector<std::string> byte_alphabet() {
  std::vector<std::string> out;
  int next = 256;
  for (int b = 0; b < kNumBytes; ++b) {
    const bool prints = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    out.push_back(utf8(prints ? b : next++));
  }
  return out;
}

bool is_special(int32_t id) { return id >= kToyBosId; }

}  // namespace

ToyTokenizer toy_tokenizer() {
  ToyTokenizer toy;
  toy.tokens = byte_alphabet();
  for (int i = 0; i < kNumPairs; ++i) {
    const char a = kFirst[i / kSecond.size()], b = kSecond[i % kSecond.size()];
    toy.tokens.push_back({a, b});
    toy.merges.push_back({a, ' ', b});
  }
  toy.tokens.insert(toy.tokens.end(), std::begin(kSpecial), std::end(kSpecial));
  toy.chat_template =
      "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
      "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
      "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
  return toy;
}

void add_toy_tokenizer(GgufWriter* writer, uint32_t vocab_size, bool add_bos) {
  if (vocab_size < kToyVocabSize) throw std::invalid_argument("vocabulary too small");
  ToyTokenizer toy = toy_tokenizer();
  std::vector<int32_t> types;
  for (int32_t id = 0; id < static_cast<int32_t>(kToyVocabSize); ++id) {
    types.push_back(is_special(id) ? kControl : kNormal);
  }
  while (toy.tokens.size() < vocab_size) {
    toy.tokens.push_back("[PAD" + std::to_string(toy.tokens.size()) + "]");
    types.push_back(kUnused);
  }
  writer->set("tokenizer.ggml.model", std::string_view("gpt2"))
      .set("tokenizer.ggml.pre", std::string_view("smollm"))
      .set("tokenizer.ggml.tokens", toy.tokens)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", toy.merges)
      .set("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(kToyBosId))
      .set("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(kToyEosId))
      .set_bool("tokenizer.ggml.add_bos_token", add_bos)
      .set("tokenizer.chat_template", std::string_view(toy.chat_template));
}

std::string toy_tokenizer_json() {
  const ToyTokenizer toy = toy_tokenizer();
  json::array added;
  json::object vocab;
  for (int32_t id = 0; id < static_cast<int32_t>(toy.tokens.size()); ++id) {
    vocab[toy.tokens[id]] = id;
    if (!is_special(id)) continue;
    added.push_back({{"id", id},
                     {"content", toy.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const json::object byte_level{{"type", "ByteLevel"},
                                {"add_prefix_space", false},
                                {"trim_offsets", true},
                                {"use_regex", true}};
  json::object model{{"type", "BPE"},
                     {"dropout", nullptr},
                     {"unk_token", nullptr},
                     {"continuing_subword_prefix", nullptr},
                     {"end_of_word_suffix", nullptr},
                     {"fuse_unk", false},
                     {"byte_fallback", false},
                     {"ignore_merges", false},
                     {"vocab", vocab},
                     {"merges", json::value_from(toy.merges)}};
  return json::serialize(json::object{{"version", "1.0"},
                                      {"truncation", nullptr},
                                      {"padding", nullptr},
                                      {"added_tokens", added},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", byte_level},
                                      {"post_processor", nullptr},
                                      {"decoder", byte_level},
                                      {"model", model}});
}

std::string toy_tokenizer_config_json(bool add_bos) {
  return json::serialize(json::object{{"add_bos_token", add_bos},
                                      {"bos_token", "<|endoftext|>"},
                                      {"eos_token", "<|im_end|>"},
                                      {"chat_template", toy_tokenizer().chat_template},
                                      {"tokenizer_class", "GPT2Tokenizer"}});
}

}  // namespace baton::fakes
