#pragma once

#include <span>

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/attention_plan.h"

// Launches of attention's kernels for halves T, each type's in a file of its own: what a compiler
// makes of one kernel depends on what else stands in its file.
namespace baton::ops::attention {

// The tile kernel. `merges`: as TileParams has it.
template <class T>
void run_tiles(device::CudaStream& stream, const AttentionArgs& args, const TilePlan& plan,
               const AttentionRecords& records, bool merges);

// The row kernel. `items`: where the device reads.
template <class T>
void run_rows(device::CudaStream& stream, const AttentionArgs& args,
              std::span<const RowItem> items);

}  // namespace baton::ops::attention
