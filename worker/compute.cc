#include "worker/compute.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <set>
#include <string_view>
#include <utility>

#include "common/collective/nccl_collective.h"
#include "common/device/cpu/cpu_device.h"
#include "common/device/cuda/cuda_device.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/ops/cuda/cuda_ops.h"
#include "worker/rank_channel.h"

namespace baton::worker {
namespace {

// NCCL's own switch, of tests on machines with fewer GPUs than ranks.
bool ranks_may_share_a_gpu() {
  const char* const set = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  return set != nullptr && std::string_view(set) == "1";
}

result<std::vector<uint32_t>> parse_gpus(std::string_view list) {
  std::vector<uint32_t> gpus;
  for (size_t begin = 0; begin <= list.size();) {
    const size_t end = std::min(list.find(',', begin), list.size());
    const char* const last = list.data() + end;
    uint32_t gpu = 0;
    const auto [stop, wrong] = std::from_chars(list.data() + begin, last, gpu);
    if (wrong != std::errc() || stop != last) {
      return error(Errc::kInvalidArgument,
                   fmt::format("rank_gpus '{}' is no list of numbers with commas between", list));
    }
    gpus.push_back(gpu);
    begin = end + 1;
  }
  return gpus;
}

}  // namespace

result<DType> parse_dtype(const std::string& dtype, const std::string& device) {
  const auto refuse = [&](Errc code, const char* why) {
    return error(code, "dtype '" + dtype + "' " + why);
  };
  if (dtype == "bf16") return DType::kBF16;
  if (dtype == "f16") {
    if (device == "cuda") return DType::kF16;
    return refuse(Errc::kUnsupported, "is offered on cuda alone; use bf16 or f32 on the CPU");
  }
  if (dtype != "f32") return refuse(Errc::kInvalidArgument, "is none of bf16, f16, f32");
  if (device != "cuda") return DType::kF32;
  return refuse(Errc::kUnsupported, "is not offered on cuda; use bf16 or f16");
}

result<Compute> make_compute(const ComputeOptions& options) {
  Compute made;
  if (options.device == "cpu") {
    made.device = device::make_cpu_device(options.threads);
    made.ops = ops::cpu_ops();
    return made;
  }
  if (options.device != "cuda") {
    return error(Errc::kInvalidArgument,
                 "device '" + options.device + "' is none of cpu, cuda, emulated");
  }
  BATON_TRY(const DType half, parse_dtype(options.dtype, options.device));
  BATON_TRY(made.device, device::make_cuda_device(static_cast<int>(options.gpu)));
  BATON_TRY(made.ops, ops::cuda_ops({.half = half, .deterministic = options.deterministic}));
  return made;
}

result<std::vector<uint32_t>> gpus_of_ranks(const WorkerConfig& config) {
  const uint32_t ranks = config.tensor_parallel;
  const bool is_named = !config.rank_gpus.empty();
  std::vector<uint32_t> gpus;
  for (uint32_t r = 0; r < ranks; ++r) gpus.push_back(config.gpu + r);
  if (is_named) {
    BATON_TRY(gpus, parse_gpus(config.rank_gpus));
  }
  if (gpus.size() != ranks) {
    return error(Errc::kInvalidArgument, fmt::format("rank_gpus '{}' names {} GPUs for {} ranks",
                                                     config.rank_gpus, gpus.size(), ranks));
  }
  if (std::set(gpus.begin(), gpus.end()).size() < ranks && !ranks_may_share_a_gpu()) {
    return error(Errc::kInvalidArgument,
                 fmt::format("rank_gpus '{}' gives a GPU to two ranks: each needs one of its own",
                             config.rank_gpus));
  }
  if (ranks == 1) return gpus;  // whoever makes the device says the rest
  BATON_TRY(const int counted, device::count_cuda_devices());
  const auto there_are = static_cast<uint32_t>(counted);
  if (!is_named && ranks_may_share_a_gpu() && there_are > 0) {
    for (uint32_t& gpu : gpus) gpu %= there_are;
  }
  const uint32_t last = *std::max_element(gpus.begin(), gpus.end());
  if (last < there_are) return gpus;
  return error(Errc::kUnavailable,
               fmt::format("tensor_parallel {} needs a GPU for each rank, up to GPU {}; this "
                           "machine has {}",
                           ranks, last, there_are));
}

result<std::unique_ptr<collective::Collective>> connect_ranks(
    const proto::RankSetup& setup, device::Device& device, const collective::Exchange& exchange) {
  if (setup.device() != "cuda") {
    return collective::connect_gloo(setup.rank(), setup.size(), exchange, kRankStep);
  }
  return collective::connect_nccl(
      setup.rank(), setup.size(), exchange, kRankStep,
      {.library = setup.nccl_library(), .device = &device, .native_stream = device::native_stream});
}

}  // namespace baton::worker
