#include "tests/fakes/tiny_model.h"

#include <cmath>

namespace baton::fakes {
namespace {

using formats::TensorRole;

// SplitMix64; the standard library's distributions differ between implementations.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  float uniform(float low, float high) {
    const auto unit = static_cast<float>(next() >> 40) * 0x1p-24f;
    return low + (high - low) * unit;
  }

 private:
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  uint64_t state_;
};

// Norms around 1, everything else around 0, so that activations keep their size over the layers and
// the logits are spread enough for two of them not to tie.
void fill(TensorRole role, const std::vector<uint64_t>& shape, Random* random,
          std::vector<float>* values) {
  float center = 0, spread = 0.2f;
  switch (role) {
    case TensorRole::kFinalNorm:
    case TensorRole::kAttnNorm:
    case TensorRole::kMlpNorm:
    case TensorRole::kQNorm:
    case TensorRole::kKNorm:
      center = 1;
      break;
    case TensorRole::kEmbedding:
      spread = 1;
      break;
    default:
      if (shape.size() == 2) spread = 2.0f / std::sqrt(static_cast<float>(shape[1]));
  }
  for (float& v : *values) v = random->uniform(center - spread, center + spread);
}

}  // namespace

formats::ModelConfig tiny_config(std::string_view architecture) {
  formats::ModelConfig c;
  c.architecture = architecture;
  c.num_layers = 2;
  c.hidden = 64;
  c.intermediate = 128;
  c.num_heads = 4;
  c.num_kv_heads = 2;
  c.head_dim = 16;
  c.vocab_size = 320;
  c.max_position = 512;
  c.rms_norm_eps = 1e-5f;
  c.rope_theta = 10000;
  c.tie_embeddings = architecture == "llama";
  c.attention_bias = architecture == "qwen2";
  c.qk_norm = architecture == "qwen3";
  c.eos_ids = {319};
  c.bos_id = 317;
  return c;
}

TinyModel make_tiny_model(const formats::ModelConfig& config, uint64_t seed) {
  TinyModel model{config, {}};
  Random random(seed);
  for (const TensorRole role : formats::all_tensor_roles()) {
    if (!formats::is_required(config, role)) continue;
    const uint32_t layers = formats::is_per_layer(role) ? config.num_layers : 1;
    for (uint32_t layer = 0; layer < layers; ++layer) {
      TinyModel::Tensor tensor{role, layer, formats::tensor_shape(config, role), {}};
      uint64_t elements = 1;
      for (const uint64_t dim : tensor.shape) elements *= dim;
      tensor.values.resize(elements);
      fill(role, tensor.shape, &random, &tensor.values);
      model.tensors.push_back(std::move(tensor));
    }
  }
  return model;
}

}  // namespace baton::fakes
