#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "common/base/dtype.h"
#include "common/base/result.h"
#include "doctor/finding.h"

namespace baton::doctor {

struct ModelFacts {
  uint64_t weight_bytes = 0;        // as loaded
  uint64_t kv_bytes_per_token = 0;  // all layers, K and V
  uint32_t max_position = 0;
};

// Opens all that a router and a worker open of a model, and says what it takes in `dtype` and how
// much of it a cache of `kv_bytes` holds. Nothing where it cannot be used, which is in the report.
// Blocks on the disk.
std::optional<ModelFacts> check_model(const std::filesystem::path& path, DType dtype,
                                      uint64_t kv_bytes, Report& report);

}  // namespace baton::doctor
