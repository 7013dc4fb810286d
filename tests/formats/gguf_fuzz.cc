#include "common/formats/gguf.h"
#include "common/formats/model_files.h"
#include "tests/fakes/memory_file.h"

// Any bytes as a GGUF file: a model or an error, and every getter on every key that models use.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::formats;
  const baton::fakes::MemoryFile file({reinterpret_cast<const char*>(data), size});
  if (const auto gguf = GgufFile::open(file.path())) {
    for (const char* key :
         {"general.architecture", "tokenizer.ggml.tokens", "tokenizer.ggml.scores",
          "tokenizer.ggml.token_type", "llama.block_count"}) {
      const GgufMetadata& m = gguf->metadata();
      (void)m.uint(key), (void)m.number(key), (void)m.boolean(key), (void)m.string(key);
      (void)m.strings(key), (void)m.ints(key), (void)m.floats(key);
    }
    for (const TensorView& tensor : gguf->tensors().tensors()) {
      std::vector<float> values(tensor.elements());
      dequantize(tensor.type, tensor.data, values);
    }
  }
  (void)ModelFiles::open(file.path());
  return 0;
}
