#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/result.h"
#include "common/collective/collective.h"
#include "common/device/device.h"
#include "common/ops/ops.h"
#include "common/proto/rank.pb.h"
#include "worker/worker.h"

namespace baton::worker {

// What --dtype says on `device`, cpu or cuda; errors name it. An emulated device has any of the
// CPU's.
result<DType> parse_dtype(const std::string& dtype, const std::string& device);

// What a process computes with.
struct Compute {
  std::unique_ptr<device::Device> device;
  ops::Ops ops;
};
struct ComputeOptions {
  std::string device;  // cpu or cuda
  std::string dtype;
  uint32_t threads = 1;        // cpu
  uint32_t gpu = 0;            // cuda
  bool deterministic = false;  // cuda
};
// Blocks for as long as the driver takes. Errors are sentences for people.
result<Compute> make_compute(const ComputeOptions& options);

// The GPU of each rank: as --rank-gpus says, else --gpu and those that follow. Errors name what is
// wrong: a number that is none, ranks without a GPU of their own, a GPU that there is not.
result<std::vector<uint32_t>> gpus_of_ranks(const WorkerConfig& config);

// Connects this rank with the others that `setup` is for: over NCCL where they compute on GPUs,
// else over Gloo. `device` is its own and outlives the result. Blocks; kUnavailable.
result<std::unique_ptr<collective::Collective>> connect_ranks(const proto::RankSetup& setup,
                                                              device::Device& device,
                                                              const collective::Exchange& exchange);

}  // namespace baton::worker
