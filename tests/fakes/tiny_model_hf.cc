#include <boost/json.hpp>
#include <map>

#include "tests/fakes/encode.h"
#include "tests/fakes/safetensors_writer.h"
#include "tests/fakes/tiny_model.h"
#include "tests/fakes/toy_tokenizer.h"

namespace baton::fakes {
namespace {

namespace json = boost::json;

std::string shard_name(int shard, int shards) {
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", shard + 1, shards);
  return name;
}

void write_weights(const std::filesystem::path& directory, const TinyModel& model,
                   formats::StorageType type, int shards) {
  std::vector<SafetensorsWriter> writers(shards);
  std::map<std::string, std::string> weight_map;
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const TinyModel::Tensor& t = model.tensors[i];
    const std::string name =
        formats::tensor_name(formats::TensorSource::kHuggingFace, t.role, t.layer);
    const int shard = static_cast<int>(i * shards / model.tensors.size());
    writers[shard].add(name, type, t.shape, encode(type, t.values));
    weight_map[name] = shard_name(shard, shards);
  }
  if (shards == 1) return writers[0].write(directory / "model.safetensors");
  for (int i = 0; i < shards; ++i) writers[i].write(directory / shard_name(i, shards));
  write_file(directory / "model.safetensors.index.json", safetensors_index(weight_map));
}

json::value scaling_json(const formats::ModelConfig& c) {
  switch (c.rope_scaling) {
    case formats::RopeScaling::kNone:
      return nullptr;
    case formats::RopeScaling::kLinear:
      return json::object{{"rope_type", "linear"}, {"factor", c.rope_factor}};
    case formats::RopeScaling::kLlama3:
      break;
  }
  return json::object{{"rope_type", "llama3"},
                      {"factor", c.rope_factor},
                      {"low_freq_factor", c.rope_low_freq_factor},
                      {"high_freq_factor", c.rope_high_freq_factor},
                      {"original_max_position_embeddings", c.rope_original_max_position}};
}

}  // namespace

std::string hf_config_json(const formats::ModelConfig& c) {
  json::object config{{"model_type", c.architecture},
                      {"num_hidden_layers", c.num_layers},
                      {"hidden_size", c.hidden},
                      {"intermediate_size", c.intermediate},
                      {"num_attention_heads", c.num_heads},
                      {"num_key_value_heads", c.num_kv_heads},
                      {"head_dim", c.head_dim},
                      {"vocab_size", c.vocab_size},
                      {"max_position_embeddings", c.max_position},
                      {"rms_norm_eps", c.rms_norm_eps},
                      {"rope_theta", c.rope_theta},
                      {"rope_scaling", scaling_json(c)},
                      {"hidden_act", "silu"},
                      {"tie_word_embeddings", c.tie_embeddings},
                      {"eos_token_id", json::value_from(c.eos_ids)}};
  if (c.bos_id) config["bos_token_id"] = *c.bos_id;
  return json::serialize(config);
}

void write_hf_model(const std::filesystem::path& directory, const TinyModel& model,
                    formats::StorageType type, int shards) {
  std::filesystem::create_directories(directory);
  write_file(directory / "config.json", hf_config_json(model.config));
  write_file(
      directory / "generation_config.json",
      json::serialize(json::object{{"eos_token_id", json::value_from(model.config.eos_ids)}}));
  write_file(directory / "tokenizer.json", toy_tokenizer_json());
  write_file(directory / "tokenizer_config.json", toy_tokenizer_config_json(model.config.add_bos));
  write_weights(directory, model, type, shards);
}

}  // namespace baton::fakes
