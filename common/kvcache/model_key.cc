#include "common/kvcache/model_key.h"

#include <fmt/format.h>

namespace baton::kvcache {

std::string ModelKey::to_string() const {
  return fmt::format("weights={:?} adapter={:?} tokenizer={:?}", weights, adapter, tokenizer);
}

}  // namespace baton::kvcache
