#include <cmath>
#include <numbers>

#include "tests/fakes/encode.h"
#include "tests/fakes/tiny_model.h"
#include "tests/fakes/toy_tokenizer.h"

namespace baton::fakes {
namespace {

using formats::StorageType;
using formats::TensorRole;

// Rows of each head from halves (i, i + half) to neighbours (2i, 2i + 1).
std::vector<float> interleave(const std::vector<float>& values, uint64_t cols, uint32_t head_dim) {
  std::vector<float> out(values.size());
  const uint64_t rows = values.size() / cols, half = head_dim / 2;
  for (uint64_t row = 0; row < rows; ++row) {
    const uint64_t head = row / head_dim * head_dim, i = row % head_dim;
    const uint64_t from = head + i % 2 * half + i / 2;
    std::copy_n(values.begin() + from * cols, cols, out.begin() + row * cols);
  }
  return out;
}

// Llama 3.1's scaling as a divisor of each frequency.
std::vector<float> llama3_factors(const formats::ModelConfig& c) {
  std::vector<float> out;
  const double length = c.rope_original_max_position;
  const double low = c.rope_low_freq_factor, high = c.rope_high_freq_factor;
  for (uint32_t i = 0; i < c.head_dim / 2; ++i) {
    const double wavelength = 2 * std::numbers::pi * std::pow(c.rope_theta, 2.0 * i / c.head_dim);
    double factor = 1;
    if (wavelength > length / low) {
      factor = c.rope_factor;
    } else if (wavelength >= length / high) {
      const double smooth = (length / wavelength - low) / (high - low);
      factor = 1 / ((1 - smooth) / c.rope_factor + smooth);
    }
    out.push_back(static_cast<float>(factor));
  }
  return out;
}

void add_config(const formats::ModelConfig& c, const std::string& arch, GgufWriter* writer) {
  writer->set("general.architecture", std::string_view(arch))
      .set("general.name", std::string_view("tiny"))
      .set(arch + ".block_count", c.num_layers)
      .set(arch + ".context_length", c.max_position)
      .set(arch + ".embedding_length", c.hidden)
      .set(arch + ".feed_forward_length", c.intermediate)
      .set(arch + ".attention.head_count", c.num_heads)
      .set(arch + ".attention.head_count_kv", c.num_kv_heads)
      .set(arch + ".attention.key_length", c.head_dim)
      .set(arch + ".attention.value_length", c.head_dim)
      .set(arch + ".attention.layer_norm_rms_epsilon", c.rms_norm_eps)
      .set(arch + ".rope.freq_base", c.rope_theta)
      .set(arch + ".rope.dimension_count", c.head_dim);
  if (c.rope_scaling == formats::RopeScaling::kLinear) {
    writer->set(arch + ".rope.scaling.type", std::string_view("linear"))
        .set(arch + ".rope.scaling.factor", c.rope_factor);
  }
}

}  // namespace

GgufWriter gguf_model(const TinyModel& model, StorageType type) {
  const formats::ModelConfig& c = model.config;
  const std::string arch = c.architecture == "mistral" ? "llama" : c.architecture;
  GgufWriter writer;
  add_config(c, arch, &writer);
  add_toy_tokenizer(&writer, c.vocab_size, c.add_bos);
  if (c.rope_scaling == formats::RopeScaling::kLlama3) {
    writer.add("rope_freqs.weight", StorageType::kF32, {c.head_dim / 2},
               encode(StorageType::kF32, llama3_factors(c)));
  }
  for (const TinyModel::Tensor& t : model.tensors) {
    const bool turn = arch == "llama" && (t.role == TensorRole::kQ || t.role == TensorRole::kK);
    const std::vector<float> values =
        turn ? interleave(t.values, t.shape[1], c.head_dim) : t.values;
    const StorageType stored = t.shape.size() == 2 ? type : StorageType::kF32;
    writer.add(formats::tensor_name(formats::TensorSource::kGguf, t.role, t.layer), stored, t.shape,
               encode(stored, values));
  }
  return writer;
}

void write_gguf_model(const std::filesystem::path& path, const TinyModel& model, StorageType type) {
  gguf_model(model, type).write(path);
}

}  // namespace baton::fakes
