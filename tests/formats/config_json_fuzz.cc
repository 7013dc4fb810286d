#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/formats/model_config.h"

// Any bytes as config.json and as its two companions: a configuration that keeps its promises, or
// an error.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::formats;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto value = parse_json(text, "config.json");
  if (!value) return 0;
  const auto fields = JsonFields::root(*value, "config.json");
  if (!fields) return 0;
  const auto config = model_config_from_hf(*fields, *fields, *fields);
  if (!config) return 0;
  if (config->num_kv_heads == 0 || config->num_heads % config->num_kv_heads != 0) abort();
  if (config->head_dim == 0 || config->head_dim % 2 != 0) abort();
  return 0;
}
