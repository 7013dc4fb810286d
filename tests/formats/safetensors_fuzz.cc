
#include "common/formats/safetensors.h"
#include "tests/fakes/memory_file.h"

// Any bytes as a safetensors file: tensors whose bytes can all be read, or an error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::formats;
  const baton::fakes::MemoryFile file({reinterpret_cast<const char*>(data), size});
  const auto tensors = open_safetensors(file.path());
  if (!tensors) return 0;
  for (const TensorView& tensor : tensors->tensors()) {
    std::vector<float> values(tensor.elements());
    dequantize(tensor.type, tensor.data, values);
  }
  return 0;
}
