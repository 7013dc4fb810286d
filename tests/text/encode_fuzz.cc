// Any bytes as text: ids that give the same text back (gpt2 loses nothing), or an error for bad
// UTF-8, also when pushed token by token.
#include <cstdint>
#include <cstdlib>

#include "common/text/detokenizer.h"
#include "common/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::text;
  static const auto load = [](const char* family) {
    return *Tokenizer::load(std::string(BATON_SOURCE_DIR "/tests/text/data/") + family);
  };
  static const Tokenizer tokenizers[] = {load("gpt2"),   load("smollm"), load("llama3"),
                                         load("qwen2"),  load("tekken"), load("llama2"),
                                         load("splits"), load("flags"),  load("metaspace")};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const Tokenizer& tokenizer : tokenizers) {
    const auto ids = tokenizer.encode(text, {.add_special = false, .parse_special = size % 2 == 0});
    if (ids.has_value() == find_invalid_utf8(text).has_value()) abort();
    if (!ids) return 0;
    StreamDetokenizer stream(tokenizer, /*skip_special=*/false);
    std::string out;
    for (const auto id : *ids) {
      const std::string part = stream.push(id);
      if (find_invalid_utf8(part)) abort();
      out += part;
    }
    out += stream.finish();
    if (&tokenizer == &tokenizers[0] && out != text) abort();
    const auto guarded = tokenizer.encode(
        tokenizer.guard(text), {.add_special = false, .parse_special = true, .guarded = true});
    if (!guarded) abort();
    for (const auto id : *guarded) {
      if (&tokenizer != &tokenizers[7] && tokenizer.is_special(id)) abort();
    }
  }
  return 0;
}
