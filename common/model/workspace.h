#pragma once

#include <cstdint>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/device/tensor.h"
#include "common/formats/model_config.h"
#include "common/model/shards.h"

namespace baton::model {

// What a forward pass computes with, allocated once for the largest batch; a pass takes the first
// rows of each. Of ranks, heads and kv_heads are this rank's, and so are the columns of what is
// called part: what each rank computes of a row before all have all of it. A rank alone has the
// same memory for both.
struct Workspace {
  device::Tensor x;                // [rows, hidden] f32, the residual stream
  device::Tensor x_part;           // [rows, part of hidden] f32
  device::Tensor cos, sin;         // [rows, head_dim / 2] f32
  device::Tensor normed;           // [rows, hidden], of type `input`
  device::Tensor qkv;              // [rows, (heads + 2 * kv_heads) * head_dim], `activation`
  device::Tensor q;                // [rows, heads * head_dim], `activation`
  device::Tensor attn, attn_part;  // [rows, all heads * head_dim], `input`
  device::Tensor gate_up;          // [rows, 2 * part of intermediate], `activation`
  device::Tensor mlp, mlp_part;    // [rows, intermediate], `input`
  // The rows that the last layer goes on with.
  device::Tensor out_x, out_x_part;    // [out_rows, hidden] f32
  device::Tensor out_q;                // [out_rows, heads * head_dim], `activation`
  device::Tensor hidden;               // [out_rows, hidden], `input`, normed: what the head reads
  device::Tensor logits, logits_part;  // [logit_rows, vocab] f32
  std::byte* gathered = nullptr;       // the parts of all ranks, one behind the other

  device::Buffer memory;  // of all of them
};

struct WorkspaceSize {
  uint32_t rows = 0;      // of a batch
  uint32_t out_rows = 0;  // of a batch's outputs
  uint32_t logit_rows = 0;
};

// Element types: of what products leave, and of what they read.
struct WorkspaceTypes {
  DType activation = DType::kF32;
  DType input = DType::kF32;
};

// kResourceExhausted where the device has no room.
result<Workspace> make_workspace(device::Device& device, const formats::ModelConfig& config,
                                 const Shards& shards, WorkspaceTypes types,
                                 const WorkspaceSize& size);

}  // namespace baton::model
