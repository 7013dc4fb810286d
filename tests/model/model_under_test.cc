#include "tests/model/model_under_test.h"

#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "common/device/cpu/cpu_device.h"
#include "common/device/cuda/cuda_device.h"
#include "common/formats/model_files.h"
#include "common/ops/cpu/cpu_ops.h"
#include "common/ops/cuda/cuda_ops.h"

namespace baton::model {
namespace {

bool is_set(const char* name, const char* value) {
  const char* found = std::getenv(name);
  return found != nullptr && std::string_view(found) == value;
}

DType cuda_type() { return is_set("BATON_TEST_DTYPE", "f16") ? DType::kF16 : DType::kBF16; }

Backend cuda_backend() {
  const bool deterministic = is_set("BATON_TEST_DETERMINISTIC", "1");
  return {device::make_cuda_device(0).value(),
          ops::cuda_ops({.half = cuda_type(), .deterministic = deterministic}).value()};
}

Backend make_backend(const TestOptions& options) {
  if (options.backend) return options.backend();
  return test_on_cuda() ? cuda_backend() : cpu_backend(options.threads);
}

}  // namespace

Backend cpu_backend(unsigned threads) { return {device::make_cpu_device(threads), ops::cpu_ops()}; }

bool test_on_cuda() { return is_set("BATON_TEST_DEVICE", "cuda"); }
bool gives_same_bits() { return !test_on_cuda() || is_set("BATON_TEST_DETERMINISTIC", "1"); }

ModelUnderTest::ModelUnderTest(const std::filesystem::path& path, const TestOptions& given)
    : backend_(make_backend(given)), stream_(device().make_stream()) {
  TestOptions options = given;
  if (test_on_cuda() && !given.backend) options.weights = options.cache = cuda_type();
  const formats::ModelFiles files = formats::ModelFiles::open(path).value();
  model_ = Model::load(files, device(), ops(),
                       {.weights = options.weights,
                        .cache = options.cache,
                        .max_rows = options.max_rows,
                        .max_sequences = options.max_sequences,
                        .max_samples = options.max_samples,
                        .max_logit_bytes = options.max_logit_bytes,
                        .collective = options.collective})
               .value();
  const kvcache::KvLayout layout = model_->kv_layout(options.block_tokens);
  const size_t bytes = layout.block_bytes() * options.num_blocks;
  // Plain memory, which the engine locks where that is a mirror.
  if (options.shared_cache == nullptr) host_memory_ = device::allocate_host(bytes);
  std::byte* const host =
      options.shared_cache == nullptr ? host_memory_.data() : options.shared_cache;
  whole_cache_ = kvcache::KvCache::create({host, bytes}, layout, options.num_blocks).value();
  cache_ = host_cache_ = whole_cache_.shard(model_->rank());
  if (device().info().host_addressable) return;
  const kvcache::KvLayout own = host_cache_.layout().on_its_own();
  memory_ = device().allocate(own.block_bytes() * options.num_blocks).value();
  cache_ =
      kvcache::KvCache::create({memory_.data(), memory_.bytes()}, own, options.num_blocks).value();
}

std::vector<BlockId> ModelUnderTest::blocks(uint32_t first, uint32_t count) {
  std::vector<BlockId> table;
  for (uint32_t i = 0; i < count; ++i) table.push_back(BlockId{first + i});
  return table;
}

void ModelUnderTest::run(std::span<const TokenId> tokens, uint32_t position,
                         const std::vector<BlockId>& block_table, uint32_t chunk,
                         const RowSeen& row) {
  for (size_t done = 0; done < tokens.size(); done += chunk) {
    const auto rows = static_cast<uint32_t>(std::min<size_t>(chunk, tokens.size() - done));
    const uint32_t begin = position + static_cast<uint32_t>(done);
    std::vector<uint32_t> positions(rows);
    for (uint32_t i = 0; i < rows; ++i) positions[i] = begin + i;
    const ops::SequenceRows sequence = {0, rows, begin, block_table.data()};
    const OutputRows outputs = {0, 0, rows};
    model_->forward(*stream_,
                    {.tokens = tokens.subspan(done, rows),
                     .positions = positions,
                     .sequences = {&sequence, 1},
                     .outputs = {&outputs, 1}},
                    cache_, nullptr);
    for (uint32_t first = 0; first < rows; first += model_->max_logit_rows()) {
      const uint32_t count = std::min(model_->max_logit_rows(), rows - first);
      const device::Tensor logits = model_->logits(*stream_, first, count);
      std::vector<float> values(static_cast<size_t>(logits.rows * logits.cols));
      device().copy(*stream_, values.data(), logits.data, values.size() * sizeof(float));
      stream_->synchronize();
      for (uint32_t i = 0; i < count; ++i) {
        const auto vocab = static_cast<size_t>(logits.cols);
        row(begin + first + i, std::span(values).subspan(i * vocab, vocab));
      }
    }
  }
}

}  // namespace baton::model
