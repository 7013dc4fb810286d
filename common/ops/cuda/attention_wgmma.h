#pragma once

#include <cstdint>

#include "common/device/cuda/cuda_stream.h"
#include "common/ops/ops.h"

// Attention of long chunks on Hopper's asynchronous matrix units, where prefill spends its time.
namespace baton::ops {

// Whether wgmma_attention takes these arguments on this GPU: compute capability 9.0, bf16 or
// f16, head_dim 64 or 128, blocks of 16 to 256 tokens (a power of two), everything 16-byte aligned.
bool wgmma_attention_fits(const device::CudaInfo& info, const AttentionArgs& args);

// Causal attention of the sequences of args that have at least min_rows rows; the others' rows are
// left alone. Not while capturing. A row's result depends, in its last bits, on where its chunk
// starts, and on nothing else: not on the rows or sequences beside it.
void wgmma_attention(device::CudaStream& stream, const AttentionArgs& args, uint32_t min_rows);

}  // namespace baton::ops
