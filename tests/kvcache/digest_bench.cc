// Bytes a second that digest_layer takes, per vector size; cold: blocks in rotation past the cache.
#include <benchmark/benchmark.h>

#include <vector>

#include "common/kvcache/digest.h"

namespace baton::kvcache {
namespace {

void BM_DigestLayer(benchmark::State& state) {
  const auto head_dim = static_cast<uint32_t>(state.range(0));
  const auto num_blocks = static_cast<uint32_t>(state.range(1));
  const KvLayout layout = KvLayout::full_kv(1, 8, head_dim, DType::kBF16, 16);
  std::vector<std::byte> memory(num_blocks * layout.block_bytes(), std::byte{3});
  uint32_t block = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        digest_layer(layout, memory.data() + block * layout.block_bytes(), 0, 16, 16));
    block = (block + 1) % num_blocks;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * layout.layer_bytes()));
}
BENCHMARK(BM_DigestLayer)
    ->ArgNames({"head_dim", "blocks"})
    ->ArgsProduct({{64, 128, 256}, {4, 4096}});

}  // namespace
}  // namespace baton::kvcache
