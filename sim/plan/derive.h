#pragma once

#include <cstdint>
#include <string>

#include "common/latency/profile.h"

// What nobody has measured, by a stated rule (docs/planning.md). Pure.
namespace baton::sim {

// As much of a model as tensor parallelism has to know. Weights and KV are of two bytes an element.
struct ModelShape {
  std::string name;
  double weight_bytes = 0;
  uint32_t kv_bytes_per_token = 0;  // all layers, K and V
  uint32_t layers = 0;
  uint32_t hidden = 0;    // of a row between layers, elements
  uint32_t kv_heads = 0;  // what a degree of tensor parallelism must divide
};

// One device, by what it reaches rather than by what its sheet says. Seconds, bytes.
struct DeviceFigures {
  double memory_bytes = 0;
  double usable = 0.9;                     // of the memory, for weights and KV
  double bytes_per_second = 0;             // of memory
  double flop_per_second = 0;              // of matrix products
  double step_overhead = 0;                // of a step, however many devices share it
  double all_reduce_latency = 0;           // of one all-reduce
  double all_reduce_bytes_per_second = 0;  // a device sends, within a node
  double nic_bytes_per_second = 0;         // to other nodes
  double node_bytes_per_second = 0;        // to devices of its node
  double read_latency = 20e-6;             // of a read of KV
};

// A model on one such device, by its roofs (latency::rough_costs), plus the overhead.
latency::StepCosts one_device(const ModelShape& model, const DeviceFigures& device);

// `one`, a model's costs on one device, shared by `degree` of them: what is computed and read is
// divided, the step's overhead is not, and each layer has two all-reduces of its rows, in a ring:
// 2 (degree - 1) / degree of their bytes (Thakur et al. 2005). Of degree 1: `one`.
latency::StepCosts shared_by(const latency::StepCosts& one, const ModelShape& model,
                             const DeviceFigures& device, uint32_t degree);

// What is left of `degree` devices' memory beside the weights; 0: they do not fit.
uint64_t kv_tokens(const ModelShape& model, const DeviceFigures& device, uint32_t degree);

// The whole profile, which says of itself that it is derived, and from what. The link is the NICs'
// of all `degree` devices.
latency::Profile derived_profile(const ModelShape& model, const std::string& device_name,
                                 const DeviceFigures& device, const latency::Profile* measured,
                                 uint32_t degree);

}  // namespace baton::sim
