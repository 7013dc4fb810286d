#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/device/device.h"
#include "common/kvcache/kv_cache.h"
#include "common/model/model.h"
#include "common/ops/ops.h"

namespace baton::model {

// What computes.
struct Backend {
  std::unique_ptr<device::Device> device;
  ops::Ops ops;
};
Backend cpu_backend(unsigned threads);

struct TestOptions {
  DType weights = DType::kF32;
  DType cache = DType::kF32;
  unsigned threads = 2;
  uint32_t block_tokens = 16;
  uint32_t num_blocks = 128;
  uint32_t max_rows = 512;
  uint32_t max_sequences = 16;
  uint32_t max_samples = 16;
  size_t max_logit_bytes = LoadOptions{}.max_logit_bytes;
  std::function<Backend()> backend;  // null: as ModelUnderTest says
  collective::Collective* collective = nullptr;
  // Of ranks that are threads of one process: the memory of the cache that they share, of all
  // shards; null: each has its own.
  std::byte* shared_cache = nullptr;
};

// A model with a cache of its own, on the CPU or, where BATON_TEST_DEVICE says cuda, on GPU 0:
// there weights and cache are always bf16, or f16 where BATON_TEST_DTYPE says so, and
// BATON_TEST_DETERMINISTIC=1 chooses the deterministic operations. Everything that goes wrong
// throws.
class ModelUnderTest {
 public:
  explicit ModelUnderTest(const std::filesystem::path& path, const TestOptions& options = {});

  Model& model() { return *model_; }
  device::Device& device() { return *backend_.device; }
  const ops::Ops& ops() const { return backend_.ops; }
  kvcache::KvCache& cache() { return cache_; }
  // What the host may read: the cache itself, or a mirror for the engine to use.
  kvcache::KvCache& host_cache() { return host_cache_; }
  // Of all ranks; the host's.
  const kvcache::KvCache& whole_cache() const { return whole_cache_; }
  device::Stream& stream() { return *stream_; }

  // Runs `tokens` as the rows [position, ...) of the sequence that has `block_table`, in chunks of
  // at most `chunk` rows, and hands each row's logits [vocab] to `row`.
  using RowSeen = std::function<void(uint32_t position, std::span<const float> logits)>;
  void run(std::span<const TokenId> tokens, uint32_t position,
           const std::vector<BlockId>& block_table, uint32_t chunk, const RowSeen& row);
  // Blocks [first, first + count).
  static std::vector<BlockId> blocks(uint32_t first, uint32_t count);

 private:
  Backend backend_;
  std::unique_ptr<device::Stream> stream_;
  std::unique_ptr<Model> model_;
  device::Buffer memory_, host_memory_;
  kvcache::KvCache cache_, host_cache_, whole_cache_;
};

// Whether tests are to use a GPU; the tests of f32 arithmetic are then skipped.
bool test_on_cuda();
// Whether a row has the same bits in any batch there.
bool gives_same_bits();

}  // namespace baton::model
