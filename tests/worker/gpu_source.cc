// A process whose cache in a GPU's memory another one reads: gpu_process_test.cc. It fills the
// cache from a seed, says what peers need to map it (as a hello, in hexadecimal), and then does
// what it is told: "fill SEED" or, at the end of its input, nothing more.
#include <fmt/format.h>

#include <cstdio>
#include <iostream>
#include <string>

#include "common/device/cuda/cuda_device.h"
#include "common/device/cuda/cuda_ipc.h"
#include "common/ops/cuda/cuda_ops.h"
#include "tests/worker/gpu_pattern.h"
#include "worker/gpu_reads.h"

namespace baton::worker {
namespace {

int serve() {
  auto device = device::make_cuda_device(0);
  if (!device) return std::fprintf(stderr, "%s\n", device.error().message.c_str()), 1;
  const kvcache::KvLayout layout = pattern_layout();
  auto memory = (*device)->allocate(kPatternBlocks * layout.block_bytes());
  const auto ops = ops::cuda_ops({.half = DType::kBF16});
  auto ipc = device::make_cuda_ipc(0);
  if (!memory || !ops || !ipc) return 1;
  const auto cache =
      kvcache::KvCache::create({memory->data(), memory->bytes()}, layout, kPatternBlocks).value();
  const auto reads = make_gpu_reads({cache, *memory, **device, *ops, true}, std::move(*ipc));
  if (!reads) return std::fprintf(stderr, "%s\n", reads.error().message.c_str()), 1;
  const auto stream = (*device)->make_stream();
  const auto fill = [&](uint64_t seed) {
    const std::vector<std::byte> bytes = pattern(seed);
    (*device)->copy(*stream, memory->data(), bytes.data(), bytes.size());
    stream->synchronize();
  };
  fill(kPatternSeed);
  const kvtransfer::DeviceRegion& region = (*reads)->region();
  std::string key;
  for (const char c : region.key) key += fmt::format("{:02x}", static_cast<uint8_t>(c));
  std::cout << region.gpu << ' ' << region.bytes << ' ' << key << std::endl;
  std::string word;
  for (uint64_t seed = 0; std::cin >> word >> seed;) {
    fill(seed);
    std::cout << "filled" << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace baton::worker

int main() { return baton::worker::serve(); }
