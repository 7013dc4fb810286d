// Any bytes as tokenizer.json, and as tokenizer_config.json beside a good one: a tokenizer that
// works, or an error.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "common/text/tokenizer.h"

namespace {

void use(const baton::result<baton::text::Tokenizer>& tokenizer) {
  if (!tokenizer) return;
  const auto ids = tokenizer->encode("Hello, wörld! 日本 123 <|im_end|>", {.parse_special = true});
  if (ids) tokenizer->decode(*ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace fs = std::filesystem;
  static const fs::path good(BATON_SOURCE_DIR "/tests/text/data/qwen2/tokenizer.json");
  static const fs::path first = [] {
    std::string name = (fs::temp_directory_path() / "baton_fuzz_XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) abort();
    return name;
  }();
  static const fs::path second = [] {
    fs::create_directory(first / "config");
    fs::create_symlink(good, first / "config" / "tokenizer.json");
    return first / "config";
  }();
  const auto write = [&](const fs::path& path) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  };
  write(first / "tokenizer.json");
  use(baton::text::Tokenizer::load(first));
  if (size > 0 && data[0] == '{' && size < 2'000) {
    write(second / "tokenizer_config.json");
    use(baton::text::Tokenizer::load(second));
  }
  return 0;
}
