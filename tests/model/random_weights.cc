#include "tests/model/random_weights.h"

#include <cmath>
#include <random>
#include <vector>

#include "common/model/rope.h"

namespace baton::model {
namespace {

using device::Tensor;

constexpr size_t kPattern = (size_t{1} << 20) + 7;  // no power of two: rows do not repeat soon

class Source {
 public:
  Source(device::Device& device, const ops::Ops& ops, uint32_t seed)
      : device_(device),
        ops_(ops),
        half_(ops.activation == DType::kF16 ? DType::kF16 : DType::kBF16),
        pattern_(kPattern) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    for (float& v : pattern_) v = normal(random);
  }

  result<std::unique_ptr<ops::PackedMatrix>> matrix(int64_t n, int64_t k) {
    fill(n, k);
    const Tensor t = Tensor::matrix(values_.data(), half_, n, k);
    return ops_.pack(device_, {&t, 1}, half_);
  }
  result<DeviceVector> ones(uint32_t n) {
    const std::vector<float> v(n, 1.0f);
    return to_device(v, device_);
  }
  status embedding(int64_t n, int64_t k, Weights* w) {
    fill(n, k);
    const size_t bytes = values_.size() * sizeof(uint16_t);
    BATON_TRY(w->embedding_memory, device_.allocate(bytes));
    const auto stream = device_.make_stream();
    device_.copy(*stream, w->embedding_memory.data(), values_.data(), bytes);
    stream->synchronize();
    w->embedding = Tensor::matrix(w->embedding_memory.data(), half_, n, k);
    return {};
  }

 private:
  // [n, k] with a spread of 1/sqrt(k): a product with a vector of ones' size has that size again.
  void fill(int64_t n, int64_t k) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(k));
    const auto to_half = half_ == DType::kF16 ? f32_to_f16 : f32_to_bf16;
    std::vector<uint16_t> scaled(kPattern);
    for (size_t i = 0; i < kPattern; ++i) scaled[i] = to_half(pattern_[i] * scale);
    values_.resize(static_cast<size_t>(n * k));
    offset_ = (offset_ + 12345) % kPattern;
    for (size_t done = 0, from = offset_; done < values_.size(); from = 0) {
      const size_t count = std::min(kPattern - from, values_.size() - done);
      std::copy_n(scaled.begin() + static_cast<std::ptrdiff_t>(from), count,
                  values_.begin() + static_cast<std::ptrdiff_t>(done));
      done += count;
    }
  }

  device::Device& device_;
  const ops::Ops& ops_;
  const DType half_;
  std::vector<float> pattern_;
  std::vector<uint16_t> values_;
  size_t offset_ = 0;
};

status fill_layer(const formats::ModelConfig& c, Source& source, LayerWeights* w) {
  const int64_t q = int64_t{c.num_heads} * c.head_dim, kv = int64_t{c.num_kv_heads} * c.head_dim;
  BATON_TRY(w->attn_norm, source.ones(c.hidden));
  BATON_TRY(w->qkv, source.matrix(q + 2 * kv, c.hidden));
  if (c.qk_norm) {
    BATON_TRY(w->q_norm, source.ones(c.head_dim));
    BATON_TRY(w->k_norm, source.ones(c.head_dim));
  }
  BATON_TRY(w->o, source.matrix(c.hidden, q));
  BATON_TRY(w->mlp_norm, source.ones(c.hidden));
  BATON_TRY(w->gate_up, source.matrix(2 * int64_t{c.intermediate}, c.hidden));
  BATON_TRY(w->down, source.matrix(c.hidden, c.intermediate));
  return {};
}

}  // namespace

result<Weights> random_weights(const formats::ModelConfig& config, device::Device& device,
                               const ops::Ops& ops, uint32_t seed) {
  Source source(device, ops, seed);
  Weights w;
  w.layers.resize(config.num_layers);
  for (LayerWeights& layer : w.layers) BATON_CHECK_OK(fill_layer(config, source, &layer));
  BATON_TRY(w.final_norm, source.ones(config.hidden));
  BATON_TRY(w.head, source.matrix(config.vocab_size, config.hidden));
  if (!config.tie_embeddings) {
    BATON_CHECK_OK(source.embedding(config.vocab_size, config.hidden, &w));
  }
  BATON_TRY(w.rope_frequencies, rope_frequencies(config, {}));
  BATON_TRY(w.rope_device, to_device(w.rope_frequencies, device));
  return w;
}

formats::ModelConfig llama3_8b_shape(uint32_t layers) {
  formats::ModelConfig c;
  c.architecture = "llama";
  c.num_layers = layers;
  c.hidden = 4096;
  c.intermediate = 14336;
  c.num_heads = 32;
  c.num_kv_heads = 8;
  c.head_dim = 128;
  c.vocab_size = 128256;
  c.max_position = 131072;
  c.rms_norm_eps = 1e-5f;
  c.rope_theta = 500000;
  return c;
}

}  // namespace baton::model
