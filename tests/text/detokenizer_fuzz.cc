// Any ids, any stop strings, any cuts: well-formed text, and no stop string in it.
#include <cstdint>
#include <cstdlib>

#include "common/text/detokenizer.h"
#include "common/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::text;
  static const Tokenizer tokenizer = *Tokenizer::load(BATON_SOURCE_DIR "/tests/text/data/gpt2");
  if (size < 2) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const std::string stop(bytes.substr(2, data[0] % 8)), other(bytes.substr(2, data[1] % 4));
  StreamDetokenizer stream(tokenizer);
  StopMatcher matcher({stop, other});
  std::string out;
  for (size_t at = 2; at + 1 < size && !matcher.stopped(); at += 2) {
    const std::string text = stream.push(data[at] << 8 | data[at + 1]);
    if (find_invalid_utf8(text)) abort();
    out += matcher.push(text).text;
  }
  out += matcher.stopped() ? "" : matcher.push(stream.finish()).text + matcher.finish();
  for (const auto& one : {stop, other}) {
    if (!one.empty() && out.find(one) != std::string::npos) abort();
  }
  return 0;
}
