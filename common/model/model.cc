#include "common/model/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <utility>

#include "common/kvcache/sha256.h"
#include "common/model/rope.h"

namespace baton::model {
namespace {

using device::Stream;
using device::Tensor;

// Changes with any change of this folder that changes a bit of a logit.
constexpr int kArithmeticVersion = 1;

bool is_offered(const ops::Ops& ops, DType dtype) {
  if (ops.activation == DType::kF16) return dtype == DType::kF16;
  return dtype == DType::kF32 || dtype == DType::kBF16;
}

uint32_t logit_rows(size_t max_bytes, uint32_t vocab_size, uint32_t out_rows) {
  const size_t fit = max_bytes / (sizeof(float) * vocab_size);
  return static_cast<uint32_t>(std::clamp<size_t>(fit, 1, out_rows));
}

kvcache::ModelKey make_key(const formats::ModelFiles& files, std::string weights) {
  kvcache::ModelKey key;
  key.weights = std::move(weights);
  if (files.gguf() == nullptr) {
    kvcache::Sha256 sha;
    sha.update(std::as_bytes(std::span(files.tokenizer_json())));
    key.tokenizer = kvcache::to_hex(sha.finish());
  }
  return key;
}

size_t bytes_of(const Weights& w) {
  size_t bytes = w.head->bytes() + w.embedding_memory.bytes();
  for (const LayerWeights& l : w.layers) {
    bytes += l.qkv->bytes() + l.o->bytes() + l.gate_up->bytes() + l.down->bytes();
  }
  return bytes;
}

}  // namespace

ops::PagedKv paged_kv(const kvcache::KvCache& cache, uint32_t layer) {
  const kvcache::KvLayout& layout = cache.layout();
  return {.base = cache.at(BlockId{0}, layer),
          .dtype = layout.dtype,
          .block_tokens = layout.block_tokens,
          .num_kv_heads = layout.num_heads(),
          .head_dim = static_cast<uint32_t>(layout.vector_bytes() / size_bytes(layout.dtype)),
          .block_stride = layout.block_stride(),
          .plane_stride = layout.plane_bytes(),
          .head_stride = layout.head_bytes(),
          .token_stride = layout.vector_bytes()};
}

// The rows that attention and MLP of a layer work on: all of the batch, or the outputs.
struct Model::LayerRows {
  Tensor x, x_part;  // [rows, hidden]: x_part comes in, both go out
  Tensor q;          // [rows, heads * head_dim]
  ops::Sequences sequences;
};

Model::Model(const formats::ModelConfig& config, device::Device& device, const ops::Ops& ops,
             const LoadOptions& options)
    : config_(config), device_(device), ops_(ops), options_(options) {
  if (options_.max_context == 0) options_.max_context = config_.max_position;
  options_.progress = nullptr;
  numerics_ = fmt::format("{} weights={} cache={} model={}", ops.numerics, name(options.weights),
                          name(options.cache), kArithmeticVersion);
}

status Model::check(std::string_view source) const {
  if (!is_offered(ops_, options_.weights) || !is_offered(ops_, options_.cache)) {
    return error(Errc::kUnsupported,
                 fmt::format("weights in {} with a cache in {}: on {} each must be {}",
                             name(options_.weights), name(options_.cache), ops_.backend,
                             ops_.activation == DType::kF16 ? "f16" : "f32 or bf16"));
  }
  if (options_.max_context > config_.max_position) {
    return error(Errc::kInvalidArgument,
                 fmt::format("max_context {} is beyond the {} positions of {}",
                             options_.max_context, config_.max_position, source));
  }
  if (config_.head_dim % 16 != 0 || config_.head_dim > 512) {
    return error(Errc::kUnsupported,
                 fmt::format("{}: head_dim {} is not offered (a multiple of 16, at most 512)",
                             source, config_.head_dim));
  }
  return {};
}

// Which part of it all is this rank's.
status Model::split() {
  collective::Collective* const ranks = options_.collective;
  if (ranks != nullptr && ops_.join_columns == nullptr) {
    return error(Errc::kUnsupported,
                 fmt::format("tensor parallelism is not offered on {} yet", ops_.backend));
  }
  BATON_TRY(shards_, Shards::create(config_, ranks == nullptr ? 0 : ranks->rank(),
                                    ranks == nullptr ? 1 : ranks->size()));
  if (shards_.is_whole()) options_.collective = nullptr;
  part_bytes_.resize(shards_.size());
  parts_.resize(shards_.size());
  return {};
}

result<std::unique_ptr<Model>> Model::load(const formats::ModelFiles& files, device::Device& device,
                                           const ops::Ops& ops, const LoadOptions& options) {
  std::unique_ptr<Model> model(new Model(files.config(), device, ops, options));
  BATON_CHECK_OK(model->check(files.path().string()));
  BATON_CHECK_OK(model->split());
  BATON_TRY(model->weights_,
            load_weights(files, device, ops, options.weights, model->shards_, options.progress));
  model->model_key_ = make_key(files, model->weights_.digest);
  BATON_CHECK_OK(model->prepare());
  return model;
}

result<std::unique_ptr<Model>> Model::create(const formats::ModelConfig& config, Weights weights,
                                             device::Device& device, const ops::Ops& ops,
                                             const LoadOptions& options) {
  std::unique_ptr<Model> model(new Model(config, device, ops, options));
  assert(options.collective == nullptr);
  BATON_CHECK_OK(model->check("the model"));
  BATON_CHECK_OK(model->split());
  model->weights_ = std::move(weights);
  BATON_CHECK_OK(model->prepare());
  return model;
}

// All that passes need beside the weights.
status Model::prepare() {
  weight_bytes_ = bytes_of(weights_);
  const uint32_t out_rows = options_.max_rows + options_.max_samples;
  const WorkspaceSize size = {
      .rows = options_.max_rows,
      .out_rows = out_rows,
      .logit_rows = logit_rows(options_.max_logit_bytes, config_.vocab_size, out_rows)};
  const WorkspaceTypes types = {
      .activation = ops_.activation,
      .input = options_.weights == DType::kBF16 ? ops_.bf16_input : ops_.activation};
  BATON_TRY(work_, make_workspace(device_, config_, shards_, types, size));
  BATON_TRY(inputs_, PassInputs::create(
                         device_, {.rows = options_.max_rows,
                                   .sequences = options_.max_sequences,
                                   .outputs = out_rows,
                                   .output_ranges = options_.max_sequences + options_.max_samples,
                                   .max_context = options_.max_context}));
  return {};
}

kvcache::KvLayout Model::kv_layout(uint32_t block_tokens) const {
  auto layout = kvcache::KvLayout::full_kv(config_.num_layers, config_.num_kv_heads,
                                           config_.head_dim, options_.cache, block_tokens);
  layout.rope = rope_text(weights_.rope_frequencies);
  if (!shards_.is_whole()) {
    layout.shard_heads.assign(shards_.kv_heads().begin(), shards_.kv_heads().end());
  }
  return layout;
}

// Whether the batch is decode rows alone, one a sequence, each an output.
bool Model::is_recordable(const ForwardBatch& batch) const {
  return device_.info().captures && batch.tokens.size() <= PassGraphs::kMaxRows &&
         std::all_of(batch.sequences.begin(), batch.sequences.end(),
                     [](const ops::SequenceRows& s) { return s.num_rows == 1; }) &&
         outputs_are_rows(batch);
}

void Model::forward(Stream& stream, const ForwardBatch& batch, const kvcache::KvCache& cache,
                    LayerObserver* observer) {
  assert(batch.tokens.size() <= options_.max_rows && batch.tokens.size() == batch.positions.size());
  assert(batch.sequences.size() <= options_.max_sequences);
  if (observer == nullptr && is_recordable(batch)) {
    run_recorded(stream, batch, cache, PassGraphs::shape_of(batch, max_recorded_rows()));
    num_outputs_ = static_cast<uint32_t>(batch.tokens.size());
    return;
  }
  const Pass pass = inputs_.upload(stream, batch, cache.layout().block_tokens);
  num_outputs_ = static_cast<uint32_t>(pass.out_rows.size());
  run_layers(stream, pass, cache, observer);
}

void Model::run_recorded(Stream& stream, const ForwardBatch& batch, const kvcache::KvCache& cache,
                         const PassGraphs::Shape& shape) {
  const Pass pass =
      inputs_.upload(stream, batch, cache.layout().block_tokens, shape.rows, shape.max_tokens);
  graphs_.run(stream, shape, [&] { run_layers(stream, pass, cache, nullptr); });
}

void Model::warm_up(Stream& stream, const kvcache::KvCache& cache, const TokenId* drawn,
                    const PassGraphs::Shape& shape) {
  const ForwardBatch nobodys = {.drawn = shape.resolves ? drawn : nullptr};
  run_recorded(stream, nobodys, cache, shape);  // as it is
  run_recorded(stream, nobodys, cache, shape);
  num_outputs_ = shape.rows;
  logits(stream, 0, std::min(shape.rows, max_logit_rows()));
}

void Model::run_layers(Stream& stream, const Pass& pass, const kvcache::KvCache& cache,
                       LayerObserver* observer) {
  embed(stream, pass);
  const auto num_rows = static_cast<int64_t>(pass.tokens.size());
  LayerRows rows = {.x = work_.x.slice_rows(0, num_rows),
                    .x_part = work_.x_part.slice_rows(0, num_rows),
                    .q = work_.q.slice_rows(0, num_rows),
                    .sequences = pass.sequences};
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[layer];
    const ops::PagedKv kv = paged_kv(cache, layer);
    write_kv(stream, w, pass, kv);
    if (observer != nullptr) observer->layer_done(stream, layer);
    if (layer + 1 == config_.num_layers && !pass.outputs_are_rows) {
      narrow(stream, pass);
      const auto outputs = static_cast<int64_t>(pass.out_rows.size());
      if (outputs == 0) return;
      rows = {.x = work_.out_x.slice_rows(0, outputs),
              .x_part = work_.out_x_part.slice_rows(0, outputs),
              .q = work_.out_q.slice_rows(0, outputs),
              .sequences = pass.out_sequences};
    }
    finish_layer(stream, w, kv, rows);
  }
  ops_.rms_norm(stream, rows.x, weights_.final_norm.data(), config_.rms_norm_eps,
                work_.hidden.slice_rows(0, rows.x.rows));
}

// Token embeddings into the residual stream, and the angles of the rows' positions.
void Model::embed(Stream& stream, const Pass& pass) {
  const auto rows = static_cast<int64_t>(pass.tokens.size());
  if (pass.drawn != nullptr) ops_.resolve_drawn(stream, pass.tokens, pass.drawn);
  const Tensor x_part = work_.x_part.slice_rows(0, rows);
  if (weights_.embedding.data == nullptr) {  // tied
    ops_.embed_packed(stream, pass.tokens, *weights_.head, x_part);
  } else {
    ops_.embed(stream, pass.tokens, weights_.embedding, x_part);
  }
  gather(stream, x_part, shards_.hidden(), work_.x.slice_rows(0, rows));
  ops_.rope_angles(stream, pass.positions,
                   {weights_.rope_device.data(), weights_.rope_frequencies.size()},
                   work_.cos.slice_rows(0, rows), work_.sin.slice_rows(0, rows));
}

// q of all rows, and their K and V into the cache.
void Model::write_kv(Stream& stream, const LayerWeights& w, const Pass& pass,
                     const ops::PagedKv& kv) {
  const auto rows = static_cast<int64_t>(pass.tokens.size());
  const Tensor normed = work_.normed.slice_rows(0, rows), qkv = work_.qkv.slice_rows(0, rows);
  ops_.rms_norm(stream, work_.x.slice_rows(0, rows), w.attn_norm.data(), config_.rms_norm_eps,
                normed);
  ops_.matmul(stream, normed, *w.qkv, w.qkv_bias.data(), qkv, false);
  ops_.rope_and_write_kv(stream, {.qkv = qkv,
                                  .cos = work_.cos.slice_rows(0, rows),
                                  .sin = work_.sin.slice_rows(0, rows),
                                  .q_norm = w.q_norm.data(),
                                  .k_norm = w.k_norm.data(),
                                  .norm_eps = config_.rms_norm_eps,
                                  .num_heads = num_heads(),
                                  .sequences = pass.sequences,
                                  .kv = kv,
                                  .q_out = work_.q.slice_rows(0, rows)});
}

// Behind the last layer's K and V only the outputs matter: gathers their rows.
void Model::narrow(Stream& stream, const Pass& pass) {
  const auto outputs = static_cast<int64_t>(pass.out_rows.size());
  assert(outputs <= work_.out_x.rows);
  const auto rows = static_cast<int64_t>(pass.tokens.size());
  ops_.gather_rows(stream, work_.x_part.slice_rows(0, rows), pass.out_rows,
                   work_.out_x_part.slice_rows(0, outputs));
  ops_.gather_rows(stream, work_.q.slice_rows(0, rows), pass.out_rows,
                   work_.out_q.slice_rows(0, outputs));
}

// Attention and MLP, each added to the residual stream.
void Model::finish_layer(Stream& stream, const LayerWeights& w, const ops::PagedKv& kv,
                         const LayerRows& rows) {
  const int64_t n = rows.x.rows;
  const Tensor attn_part = work_.attn_part.slice_rows(0, n), attn = work_.attn.slice_rows(0, n);
  ops_.attention(stream, {.q = rows.q,
                          .kv = kv,
                          .num_heads = num_heads(),
                          .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                          .sequences = rows.sequences,
                          .out = attn_part});
  gather(stream, attn_part, shards_.q_cols(), attn);
  ops_.matmul(stream, attn, *w.o, nullptr, rows.x_part, true);
  gather(stream, rows.x_part, shards_.hidden(), rows.x);

  const Tensor normed = work_.normed.slice_rows(0, n), gate_up = work_.gate_up.slice_rows(0, n);
  const Tensor mlp_part = work_.mlp_part.slice_rows(0, n), mlp = work_.mlp.slice_rows(0, n);
  ops_.rms_norm(stream, rows.x, w.mlp_norm.data(), config_.rms_norm_eps, normed);
  ops_.matmul(stream, normed, *w.gate_up, nullptr, gate_up, false);
  ops_.silu_mul(stream, gate_up, mlp_part);
  gather(stream, mlp_part, shards_.intermediate(), mlp);
  ops_.matmul(stream, mlp, *w.down, nullptr, rows.x_part, true);
  gather(stream, rows.x_part, shards_.hidden(), rows.x);
}

Tensor Model::logits(Stream& stream, uint32_t begin, uint32_t count) {
  assert(count <= max_logit_rows() && begin + count <= num_outputs_);
  // Where passes are recorded, of as many rows as they have, be they nobody's: operations plan a
  // product anew for each number of rows.
  uint32_t rows = count;
  if (device_.info().captures && begin == 0 && count <= PassGraphs::kMaxRows) {
    rows = std::max(count, std::min({PassGraphs::bucket(count), max_logit_rows(), max_rows()}));
  }
  const Tensor part = work_.logits_part.slice_rows(0, rows), all = work_.logits.slice_rows(0, rows);
  ops_.matmul(stream, work_.hidden.slice_rows(begin, rows), *weights_.head, nullptr, part, false);
  gather(stream, part, shards_.vocab(), all);
  return all.slice_rows(0, count);
}

// The rows of all ranks, of which `cols` says how many columns each has. Alone there is nothing to
// do: both are the same memory.
void Model::gather(Stream& stream, const Tensor& part, std::span<const uint32_t> cols,
                   const Tensor& all) {
  if (shards_.is_whole()) return;
  const size_t row_bytes = size_bytes(part.dtype);
  std::byte* to = all.rows == 1 ? all.at(0) : work_.gathered;  // one row's parts lie as they should
  std::byte* at = to;
  for (size_t r = 0; r < cols.size(); ++r) {
    parts_[r] = Tensor::matrix(at, part.dtype, part.rows, cols[r]);
    part_bytes_[r] = static_cast<size_t>(part.rows) * cols[r] * row_bytes;
    at += part_bytes_[r];
  }
  options_.collective->all_gather(stream, part.at(0), part_bytes_, to);
  if (all.rows > 1) ops_.join_columns(stream, parts_, all);
}

}  // namespace baton::model
