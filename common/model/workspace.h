#pragma once

#include <cstdint>

#include "common/base/result.h"
#include "common/device/device.h"
#include "common/device/tensor.h"
#include "common/formats/model_config.h"

namespace baton::model {

// What a forward pass computes with, allocated once for the largest batch; a pass takes the first
// rows of each.
struct Workspace {
  device::Tensor x;         // [rows, hidden] f32, the residual stream
  device::Tensor cos, sin;  // [rows, head_dim / 2] f32
  device::Tensor normed;    // [rows, hidden], of type `input`
  device::Tensor qkv;       // [rows, (heads + 2 * kv_heads) * head_dim], `activation`
  device::Tensor q;         // [rows, heads * head_dim], `activation`
  device::Tensor attn;      // [rows, heads * head_dim], `input`
  device::Tensor gate_up;   // [rows, 2 * intermediate], `activation`
  device::Tensor mlp;       // [rows, intermediate], `input`
  // The rows that the last layer goes on with.
  device::Tensor out_x;   // [out_rows, hidden] f32
  device::Tensor out_q;   // [out_rows, heads * head_dim], `activation`
  device::Tensor hidden;  // [out_rows, hidden], `input`, normed: what the head reads
  device::Tensor logits;  // [logit_rows, vocab] f32

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
                                 WorkspaceTypes types, const WorkspaceSize& size);

}  // namespace baton::model
