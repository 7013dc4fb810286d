#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/engine/step.h"

namespace baton::engine {

// A step as bytes, for the other ranks of a worker: processes of this same program on this host, so
// numbers are as memory has them. What a step is given goes along, its results do not. `out` is
// replaced; it keeps its memory, and so does a batch that is decoded into.
void encode(const StepBatch& batch, std::vector<std::byte>* out);
// kDataCorrupt where the bytes are not exactly one step.
status decode(std::span<const std::byte> bytes, StepBatch* batch);

}  // namespace baton::engine
