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

bool is_offered(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

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

ops::PagedKv paged_kv(const kvcache::KvCache& cache, const formats::ModelConfig& config,
                      uint32_t layer) {
  const kvcache::KvLayout& layout = cache.layout();
  return {.base = cache.at(BlockId{0}, layer),
          .dtype = layout.dtype,
          .block_tokens = layout.block_tokens,
          .num_kv_heads = layout.num_heads(),
          .head_dim = config.head_dim,
          .block_stride = layout.block_bytes(),
          .plane_stride = layout.plane_bytes(),
          .head_stride = layout.head_bytes(),
          .token_stride = layout.vector_bytes()};
}

}  // namespace

// The rows that attention and MLP of a layer work on: all of the batch, or the outputs.
struct Model::LayerRows {
  Tensor x;  // [rows, hidden], in and out
  Tensor q;  // [rows, heads * head_dim]
  std::span<const ops::SequenceRows> sequences;
};

Model::Model(const formats::ModelFiles& files, const ops::Ops& ops, const LoadOptions& options)
    : config_(files.config()), ops_(ops), options_(options) {
  if (options_.max_context == 0) options_.max_context = config_.max_position;
  options_.progress = nullptr;
  numerics_ = fmt::format("{} weights={} cache={} model={}", ops.numerics, name(options.weights),
                          name(options.cache), kArithmeticVersion);
  out_rows_.reserve(options.max_rows + options.max_samples);
  out_sequences_.reserve(options.max_sequences + options.max_samples);
}

status Model::check(const formats::ModelFiles& files) const {
  if (!is_offered(options_.weights) || !is_offered(options_.cache)) {
    return error(Errc::kUnsupported,
                 fmt::format("weights in {} with a cache in {}: each must be f32 or bf16",
                             name(options_.weights), name(options_.cache)));
  }
  if (options_.max_context > config_.max_position) {
    return error(Errc::kInvalidArgument,
                 fmt::format("max_context {} is beyond the {} positions of {}",
                             options_.max_context, config_.max_position, files.path().string()));
  }
  if (config_.head_dim % 16 != 0 || config_.head_dim > 512) {
    return error(Errc::kUnsupported,
                 fmt::format("{}: head_dim {} is not offered (a multiple of 16, at most 512)",
                             files.path().string(), config_.head_dim));
  }
  return {};
}

result<std::unique_ptr<Model>> Model::load(const formats::ModelFiles& files, device::Device& device,
                                           const ops::Ops& ops, const LoadOptions& options) {
  std::unique_ptr<Model> model(new Model(files, ops, options));
  BATON_CHECK_OK(model->check(files));
  BATON_TRY(model->weights_, load_weights(files, device, ops, options.weights, options.progress));
  model->model_key_ = make_key(files, model->weights_.digest);
  model->weight_bytes_ = bytes_of(model->weights_);
  const uint32_t out_rows = options.max_rows + options.max_samples;
  const WorkspaceSize size = {
      .rows = options.max_rows,
      .out_rows = out_rows,
      .logit_rows = logit_rows(options.max_logit_bytes, model->config_.vocab_size, out_rows)};
  BATON_TRY(model->work_, make_workspace(device, model->config_, ops.activation, size));
  return model;
}

kvcache::KvLayout Model::kv_layout(uint32_t block_tokens) const {
  auto layout = kvcache::KvLayout::full_kv(config_.num_layers, config_.num_kv_heads,
                                           config_.head_dim, options_.cache, block_tokens);
  layout.rope = rope_text(weights_.rope_frequencies);
  return layout;
}

void Model::forward(Stream& stream, const ForwardBatch& batch, const kvcache::KvCache& cache,
                    LayerObserver* observer) {
  assert(batch.tokens.size() <= options_.max_rows && batch.tokens.size() == batch.positions.size());
  assert(batch.sequences.size() <= options_.max_sequences);
  const auto num_rows = static_cast<int64_t>(batch.tokens.size());
  embed(stream, batch);
  LayerRows rows = {.x = work_.x.slice_rows(0, num_rows),
                    .q = work_.q.slice_rows(0, num_rows),
                    .sequences = batch.sequences};
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    const LayerWeights& w = weights_.layers[layer];
    const ops::PagedKv kv = paged_kv(cache, config_, layer);
    write_kv(stream, w, batch, kv);
    if (observer != nullptr) observer->layer_done(stream, layer);
    if (layer + 1 == config_.num_layers) {
      narrow(stream, batch);
      const auto outputs = static_cast<int64_t>(out_rows_.size());
      if (outputs == 0) return;
      rows = {.x = work_.out_x.slice_rows(0, outputs),
              .q = work_.out_q.slice_rows(0, outputs),
              .sequences = out_sequences_};
    }
    finish_layer(stream, w, kv, rows);
  }
  ops_.rms_norm(stream, rows.x, weights_.final_norm.data(), config_.rms_norm_eps,
                work_.hidden.slice_rows(0, rows.x.rows));
}

// Token embeddings into the residual stream, and the angles of the rows' positions.
void Model::embed(Stream& stream, const ForwardBatch& batch) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  if (config_.tie_embeddings) {
    ops_.embed_packed(stream, batch.tokens, *weights_.head, work_.x.slice_rows(0, rows));
  } else {
    ops_.embed(stream, batch.tokens, weights_.embedding, work_.x.slice_rows(0, rows));
  }
  ops_.rope_angles(stream, batch.positions, weights_.rope_frequencies,
                   work_.cos.slice_rows(0, rows), work_.sin.slice_rows(0, rows));
}

// q of all rows, and their K and V into the cache.
void Model::write_kv(Stream& stream, const LayerWeights& w, const ForwardBatch& batch,
                     const ops::PagedKv& kv) {
  const auto rows = static_cast<int64_t>(batch.tokens.size());
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
                                  .num_heads = config_.num_heads,
                                  .sequences = batch.sequences,
                                  .kv = kv,
                                  .q_out = work_.q.slice_rows(0, rows)});
}

// Behind the last layer's K and V only the outputs matter: gathers their rows.
void Model::narrow(Stream& stream, const ForwardBatch& batch) {
  out_rows_.clear();
  out_sequences_.clear();
  for (const OutputRows& o : batch.outputs) {
    const ops::SequenceRows& s = batch.sequences[o.sequence];
    assert(o.first + o.count <= s.num_rows);
    out_sequences_.push_back({.first_row = static_cast<uint32_t>(out_rows_.size()),
                              .num_rows = o.count,
                              .position = s.position + o.first,
                              .block_table = s.block_table});
    for (uint32_t i = 0; i < o.count; ++i) out_rows_.push_back(s.first_row + o.first + i);
  }
  const auto outputs = static_cast<int64_t>(out_rows_.size());
  assert(outputs <= work_.out_x.rows);
  const auto rows = static_cast<int64_t>(batch.tokens.size());
  ops_.gather_rows(stream, work_.x.slice_rows(0, rows), out_rows_,
                   work_.out_x.slice_rows(0, outputs));
  ops_.gather_rows(stream, work_.q.slice_rows(0, rows), out_rows_,
                   work_.out_q.slice_rows(0, outputs));
}

// Attention and MLP, each added to the residual stream.
void Model::finish_layer(Stream& stream, const LayerWeights& w, const ops::PagedKv& kv,
                         const LayerRows& rows) {
  const int64_t n = rows.x.rows;
  const Tensor attn = work_.attn.slice_rows(0, n);
  ops_.attention(stream, {.q = rows.q,
                          .kv = kv,
                          .num_heads = config_.num_heads,
                          .scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim)),
                          .sequences = rows.sequences,
                          .out = attn});
  ops_.matmul(stream, attn, *w.o, nullptr, rows.x, true);

  const Tensor normed = work_.normed.slice_rows(0, n), gate_up = work_.gate_up.slice_rows(0, n);
  const Tensor mlp = work_.mlp.slice_rows(0, n);
  ops_.rms_norm(stream, rows.x, w.mlp_norm.data(), config_.rms_norm_eps, normed);
  ops_.matmul(stream, normed, *w.gate_up, nullptr, gate_up, false);
  ops_.silu_mul(stream, gate_up, mlp);
  ops_.matmul(stream, mlp, *w.down, nullptr, rows.x, true);
}

Tensor Model::logits(Stream& stream, uint32_t begin, uint32_t count) {
  assert(count <= max_logit_rows() && begin + count <= out_rows_.size());
  const Tensor out = work_.logits.slice_rows(0, count);
  ops_.matmul(stream, work_.hidden.slice_rows(begin, count), *weights_.head, nullptr, out, false);
  return out;
}

}  // namespace baton::model
