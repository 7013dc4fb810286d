#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/dtype.h"
#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/collective/collective.h"
#include "common/device/device.h"
#include "common/formats/model_files.h"
#include "common/kvcache/kv_cache.h"
#include "common/kvcache/layout.h"
#include "common/kvcache/model_key.h"
#include "common/model/pass_graphs.h"
#include "common/model/pass_inputs.h"
#include "common/model/shards.h"
#include "common/model/weights.h"
#include "common/model/workspace.h"
#include "common/ops/ops.h"

namespace baton::model {

struct LoadOptions {
  // f32 or bf16; f16 where the operations compute in it (Ops::activation), and then nothing else.
  DType weights = DType::kBF16;
  DType cache = DType::kBF16;
  uint32_t max_rows = 512;      // rows (tokens) in a batch
  uint32_t max_sequences = 64;  // in a batch
  uint32_t max_samples = 64;    // outputs beyond max_rows that a batch may have
  uint32_t max_context = 0;     // tokens in a sequence; 0: as many as the model allows
  size_t max_logit_bytes = size_t{64} << 20;  // logits made at a time: a scored prompt has many
  Progress progress;
  // The ranks that compute this model together; null: it is computed here alone. Outlives the
  // model.
  collective::Collective* collective = nullptr;
};

// One layer of a cache, as operations want it.
ops::PagedKv paged_kv(const kvcache::KvCache& cache, uint32_t layer);

// Told while a forward pass is being enqueued, on the enqueuing thread.
class LayerObserver {
 public:
  virtual ~LayerObserver() = default;
  // K and V of all rows of the batch in `layer` are written once `stream` has passed this point.
  virtual void layer_done(device::Stream& stream, uint32_t layer) = 0;
};

// A decoder of the Llama family on one device, or this rank's part of one: then all ranks make the
// same calls in the same order, and each has all logits. It schedules nothing and does no I/O after
// load. Used by one thread at a time: a pass works in memory that the model owns.
class Model {
 public:
  // Reads and packs the weights and allocates all that passes need. Device and ops must outlive the
  // model, `files` need not. Blocks; errors are sentences that name file or option and reason.
  static result<std::unique_ptr<Model>> load(const formats::ModelFiles& files,
                                             device::Device& device, const ops::Ops& ops,
                                             const LoadOptions& options);

  // The same with weights that came from elsewhere; the model's key and digest are then empty.
  static result<std::unique_ptr<Model>> create(const formats::ModelConfig& config, Weights weights,
                                               device::Device& device, const ops::Ops& ops,
                                               const LoadOptions& options);

  const formats::ModelConfig& config() const { return config_; }
  uint32_t max_rows() const { return options_.max_rows; }
  uint32_t max_sequences() const { return options_.max_sequences; }
  uint32_t max_samples() const { return options_.max_samples; }
  uint32_t max_context() const { return options_.max_context; }
  size_t weight_bytes() const { return weight_bytes_; }  // on the device

  // The layout of this model's cache, in blocks of so many tokens: one shard a rank.
  kvcache::KvLayout kv_layout(uint32_t block_tokens) const;
  collective::Collective* collective() const { return options_.collective; }  // null: alone
  uint32_t rank() const { return shards_.rank(); }
  // `tokenizer` is SHA-256 over the directory's tokenizer.json; empty for GGUF, whose weights'
  // fingerprint has its tokenizer in it.
  const kvcache::ModelKey& model_key() const { return model_key_; }
  // Fingerprint of the arithmetic: workers of one value draw the same tokens.
  const std::string& numerics() const { return numerics_; }

  // Enqueues all layers and returns; no allocation. `cache` has this model's layout, or is this
  // rank's shard of it. All passes of
  // a model come with one stream, one cache's memory and one `drawn`: recordings keep them. At most
  // max_rows rows, max_sequences sequences, max_rows + max_samples outputs. Rows that are no output
  // end with their K and V in the last layer. `observer` may be null. On a device that records, a
  // pass of decode rows alone that nobody observes is launched as a graph from the second of its
  // shape on.
  void forward(device::Stream& stream, const ForwardBatch& batch, const kvcache::KvCache& cache,
               LayerObserver* observer);

  // Has passes of this shape recorded before anybody waits for one: runs one without a sequence,
  // and its head. Stream, cache and `drawn` are those of forward(). Not between a pass and its
  // logits. Only where DeviceInfo::captures.
  void warm_up(device::Stream& stream, const kvcache::KvCache& cache, const TokenId* drawn,
               const PassGraphs::Shape& shape);
  // What a batch of decode rows is filled up to at most.
  uint32_t max_recorded_rows() const { return std::min(options_.max_rows, options_.max_sequences); }

  // Enqueues the head for outputs [begin, begin + count) of the last pass: [count, vocab] f32 in
  // the model's memory, good until the next call. At most max_logit_rows.
  device::Tensor logits(device::Stream& stream, uint32_t begin, uint32_t count);
  uint32_t max_logit_rows() const { return static_cast<uint32_t>(work_.logits.rows); }

 private:
  struct LayerRows;

  Model(const formats::ModelConfig& config, device::Device& device, const ops::Ops& ops,
        const LoadOptions& options);
  status check(std::string_view source) const;
  status split();
  status prepare();
  bool is_recordable(const ForwardBatch& batch) const;
  void run_recorded(device::Stream& stream, const ForwardBatch& batch,
                    const kvcache::KvCache& cache, const PassGraphs::Shape& shape);
  void run_layers(device::Stream& stream, const Pass& pass, const kvcache::KvCache& cache,
                  LayerObserver* observer);
  uint32_t num_heads() const { return shards_.own(shards_.q_cols()) / config_.head_dim; }
  void embed(device::Stream& stream, const Pass& pass);
  void write_kv(device::Stream& stream, const LayerWeights& w, const Pass& pass,
                const ops::PagedKv& kv);
  void narrow(device::Stream& stream, const Pass& pass);
  void gather(device::Stream& stream, const device::Tensor& part, std::span<const uint32_t> cols,
              const device::Tensor& all);
  void finish_layer(device::Stream& stream, const LayerWeights& w, const ops::PagedKv& kv,
                    const LayerRows& rows);

  const formats::ModelConfig config_;
  device::Device& device_;
  const ops::Ops& ops_;
  LoadOptions options_;
  Shards shards_;
  kvcache::ModelKey model_key_;
  std::string numerics_;
  Weights weights_;
  size_t weight_bytes_ = 0;
  Workspace work_;
  PassInputs inputs_;
  PassGraphs graphs_;
  std::vector<size_t> part_bytes_;     // scratch of gather(); [ranks]
  std::vector<device::Tensor> parts_;  // likewise
  uint32_t num_outputs_ = 0;           // of the last pass
};

}  // namespace baton::model
