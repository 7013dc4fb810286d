#pragma once

#include <cstdint>

#include "common/device/cuda/cuda_stream.h"
#include "common/ops/ops.h"

// What attention.cu and attention_merge.cu have for each other and for the table. See attention.cu
// for how a batch is divided among the kernels.
namespace baton::ops {

// As cuda_attention, by the two kernels that give a row the same bits however its chunk is cut.
void cuda_attention_deterministic(Stream&, const AttentionArgs&);

// Records of some rows of a batch, in device memory: those of `row`, `head` and tile t begin at
// data + (row - first_row) * row_stride + (head * num_tiles + t - first_tile) * (head_dim + 2).
// In the first num_grouped sequences of the batch a record is of kGroupTiles tiles, and group g's
// is where tile g's would be.
struct AttentionRecords {
  float* data = nullptr;
  int64_t row_stride = 0;  // floats
  uint32_t first_row = 0;
  uint32_t first_tile = 0;
  uint32_t num_tiles = 0;
  uint32_t num_grouped = 0;
};

// Merges the records of all sequences of at most max_rows rows that have more than one, each
// row's up to its own position, into args.out.
void merge_tiles(device::CudaStream& stream, const AttentionArgs& args,
                 const AttentionRecords& records, uint32_t max_rows);

}  // namespace baton::ops
