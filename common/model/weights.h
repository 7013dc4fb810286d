#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/device/tensor.h"
#include "common/formats/model_files.h"
#include "common/model/shards.h"
#include "common/ops/ops.h"

namespace baton::model {

// A vector of f32 in the device's memory; null where the model has none.
class DeviceVector {
 public:
  DeviceVector() = default;
  explicit DeviceVector(device::Buffer buffer) : buffer_(std::move(buffer)) {}
  const float* data() const { return reinterpret_cast<const float*>(buffer_.data()); }

 private:
  device::Buffer buffer_;
};

// Blocks until it is there. kResourceExhausted where the device has no room.
result<DeviceVector> to_device(std::span<const float> values, device::Device& device);

// Matrices that meet the same input are one. Of ranks, each has some of the rows (shards.h): heads,
// kv_heads, intermediate, vocab and the hidden of o and down are then this rank's.
struct LayerWeights {
  DeviceVector attn_norm;                      // [hidden]
  std::unique_ptr<ops::PackedMatrix> qkv;      // [(heads + 2 * kv_heads) * head_dim, hidden]
  DeviceVector qkv_bias;                       // [(heads + 2 * kv_heads) * head_dim] or null
  DeviceVector q_norm, k_norm;                 // [head_dim] or null
  std::unique_ptr<ops::PackedMatrix> o;        // [hidden, heads * head_dim]
  DeviceVector mlp_norm;                       // [hidden]
  std::unique_ptr<ops::PackedMatrix> gate_up;  // [2 * intermediate, hidden]
  std::unique_ptr<ops::PackedMatrix> down;     // [hidden, intermediate]
};

// Everything a model multiplies with, on its device. Rows of q and k are in halves, whatever the
// file had.
struct Weights {
  std::vector<LayerWeights> layers;
  DeviceVector final_norm;                  // [hidden]
  std::unique_ptr<ops::PackedMatrix> head;  // [vocab, hidden]
  // [vocab, hidden]; empty where the head is the embedding (tied) and there are no other ranks. Of
  // ranks, each has some of the columns.
  device::Buffer embedding_memory;
  device::Tensor embedding;
  std::vector<float> rope_frequencies;  // [head_dim / 2], host memory
  DeviceVector rope_device;             // the same on the device
  std::string digest;                   // of every byte of the file; see WeightDigest. Of rank 0
};

// Bytes of the file's tensors that are loaded, of how many. Called by the loading thread.
using Progress = std::function<void(size_t bytes_done, size_t bytes_total)>;

// Reads, dequantizes and packs all weights of one rank; `store` (f32, bf16 or f16) is what is kept.
// Beside the result it needs room for the largest matrix once, and uses device.info().threads
// threads. Blocks on the disk. kResourceExhausted where the device has no room, kDataCorrupt for
// impossible values.
result<Weights> load_weights(const formats::ModelFiles& files, device::Device& device,
                             const ops::Ops& ops, DType store, const Shards& shards,
                             const Progress& progress);

}  // namespace baton::model
