#include "common/formats/model_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/fakes/safetensors_writer.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"

namespace baton::formats {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<float> values(const TensorView& view) {
  std::vector<float> out(view.elements());
  dequantize(view.type, view.data, out);
  return out;
}

class ModelFilesTest : public ::testing::TestWithParam<const char*> {
 protected:
  const fakes::TempDir dir_;
};

TEST_P(ModelFilesTest, FindsEveryRoleInBothForms) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config(GetParam()), 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  for (const char* path : {"m.gguf", "m"}) {
    const auto files = ModelFiles::open(dir_ / path);
    ASSERT_TRUE(files) << files.error().message;
    const ModelConfig& config = files->config();
    for (const fakes::TinyModel::Tensor& tensor : model.tensors) {
      const TensorView* view = files->find(tensor.role, tensor.layer);
      ASSERT_TRUE(view) << name(tensor.role);
      EXPECT_EQ(view->shape, tensor_shape(config, tensor.role));
      if (config.rope_interleaved) continue;
      EXPECT_EQ(values(*view), tensor.values) << name(tensor.role);
    }
    EXPECT_EQ(files->find(TensorRole::kQ, config.num_layers), nullptr);
    EXPECT_EQ(files->find(TensorRole::kQBias) != nullptr, config.attention_bias);
    EXPECT_EQ(files->find(TensorRole::kQNorm) != nullptr, config.qk_norm);
    EXPECT_EQ(files->find(TensorRole::kLmHead) == files->find(TensorRole::kEmbedding),
              config.tie_embeddings);
  }
}

TEST_P(ModelFilesTest, ReadsAConfigurationWithoutWeights) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config(GetParam()), 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  for (const auto& file : std::filesystem::directory_iterator(dir_ / "m")) {
    if (file.path().string().find("safetensors") != std::string::npos) {
      std::filesystem::remove(file.path());
    }
  }
  EXPECT_FALSE(ModelFiles::open(dir_ / "m"));
  for (const char* path : {"m.gguf", "m"}) {
    const auto config = read_model_config(dir_ / path);
    ASSERT_TRUE(config) << config.error().message;
    EXPECT_EQ(config->vocab_size, fakes::tiny_config(GetParam()).vocab_size);
    EXPECT_EQ(config->max_position, fakes::tiny_config(GetParam()).max_position);
    EXPECT_EQ(config->eos_ids, fakes::tiny_config(GetParam()).eos_ids);
  }
  EXPECT_FALSE(read_model_config(dir_ / "nothing"));
}

TEST_P(ModelFilesTest, ReadsTheSameConfigurationFromBothForms) {
  const ModelConfig expected = fakes::tiny_config(GetParam());
  const fakes::TinyModel model = fakes::make_tiny_model(expected, 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  for (const char* path : {"m.gguf", "m"}) {
    const auto files = ModelFiles::open(dir_ / path);
    ASSERT_TRUE(files) << files.error().message;
    const ModelConfig& c = files->config();
    EXPECT_EQ(c.num_layers, expected.num_layers);
    EXPECT_EQ(c.hidden, expected.hidden);
    EXPECT_EQ(c.intermediate, expected.intermediate);
    EXPECT_EQ(c.num_heads, expected.num_heads);
    EXPECT_EQ(c.num_kv_heads, expected.num_kv_heads);
    EXPECT_EQ(c.head_dim, expected.head_dim);
    EXPECT_EQ(c.vocab_size, expected.vocab_size);
    EXPECT_EQ(c.max_position, expected.max_position);
    EXPECT_EQ(c.rms_norm_eps, expected.rms_norm_eps);
    EXPECT_EQ(c.rope_theta, expected.rope_theta);
    EXPECT_EQ(c.rope_scaling, RopeScaling::kNone);
    EXPECT_EQ(c.tie_embeddings, expected.tie_embeddings);
    EXPECT_EQ(c.attention_bias, expected.attention_bias);
    EXPECT_EQ(c.qk_norm, expected.qk_norm);
    EXPECT_EQ(c.eos_ids, expected.eos_ids);
    EXPECT_EQ(c.bos_id, expected.bos_id);
    EXPECT_EQ(c.add_bos, expected.add_bos);
  }
}

INSTANTIATE_TEST_SUITE_P(Architectures, ModelFilesTest,
                         ::testing::Values("llama", "mistral", "qwen2", "qwen3"));

TEST_F(ModelFilesTest, LlamasRowsAreInterleavedInGguf) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  const auto gguf = ModelFiles::open(dir_ / "m.gguf"), hf = ModelFiles::open(dir_ / "m");
  ASSERT_TRUE(gguf && hf);
  EXPECT_TRUE(gguf->config().rope_interleaved);
  EXPECT_FALSE(hf->config().rope_interleaved);
  const std::vector<float> stored = values(*gguf->find(TensorRole::kK, 1));
  const std::vector<float> halves = values(*hf->find(TensorRole::kK, 1));
  // Row 3 of head 1 is the second of pair 1: row 1 + half of the head.
  const size_t cols = 64, head_dim = 16, half = 8;
  for (size_t col = 0; col < cols; ++col) {
    EXPECT_EQ(stored[(head_dim + 3) * cols + col], halves[(head_dim + 1 + half) * cols + col]);
  }
}

TEST_F(ModelFilesTest, GivesAccessToTheTokenizerOfEitherForm) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  const auto gguf = ModelFiles::open(dir_ / "m.gguf"), hf = ModelFiles::open(dir_ / "m");
  ASSERT_TRUE(gguf && hf);
  EXPECT_EQ(gguf->gguf()->metadata().strings("tokenizer.ggml.tokens")->size(), 320u);
  EXPECT_THAT(gguf->tokenizer_json(), IsEmpty());
  EXPECT_EQ(hf->gguf(), nullptr);
  EXPECT_THAT(hf->tokenizer_json(), HasSubstr("ByteLevel"));
}

TEST_F(ModelFilesTest, KeepsTheStoredType) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
  for (const StorageType type : {StorageType::kF16, StorageType::kBF16, StorageType::kQ8_0,
                                 StorageType::kQ4_0, StorageType::kQ4_1}) {
    fakes::write_gguf_model(dir_ / "m.gguf", model, type);
    const auto files = ModelFiles::open(dir_ / "m.gguf");
    ASSERT_TRUE(files) << files.error().message;
    EXPECT_EQ(files->find(TensorRole::kGate, 1)->type, type);
    EXPECT_EQ(files->find(TensorRole::kMlpNorm, 1)->type, StorageType::kF32);
  }
}

TEST_F(ModelFilesTest, Llama3ScalingIsATensorInGgufAndFieldsElsewhere) {
  ModelConfig config = fakes::tiny_config("llama");
  config.rope_scaling = RopeScaling::kLlama3;
  config.rope_factor = 8;
  config.rope_high_freq_factor = 4;
  config.rope_original_max_position = 128;
  const fakes::TinyModel model = fakes::make_tiny_model(config, 1);
  fakes::write_gguf_model(dir_ / "m.gguf", model);
  fakes::write_hf_model(dir_ / "m", model);
  const auto gguf = ModelFiles::open(dir_ / "m.gguf"), hf = ModelFiles::open(dir_ / "m");
  ASSERT_TRUE(gguf) << gguf.error().message;
  ASSERT_TRUE(hf) << hf.error().message;
  EXPECT_EQ(gguf->config().rope_scaling, RopeScaling::kNone);
  const std::vector<float> factors = values(*gguf->find(TensorRole::kRopeFactors));
  EXPECT_EQ(factors.size(), 8u);
  EXPECT_EQ(factors.front(), 1);
  EXPECT_EQ(factors.back(), 8);
  EXPECT_EQ(hf->find(TensorRole::kRopeFactors), nullptr);
  EXPECT_EQ(hf->config().rope_scaling, RopeScaling::kLlama3);
  EXPECT_EQ(hf->config().rope_factor, 8);
  EXPECT_EQ(hf->config().rope_high_freq_factor, 4);
  EXPECT_EQ(hf->config().rope_original_max_position, 128u);
}

TEST_F(ModelFilesTest, IgnoresWhatOlderCheckpointsCarry) {
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 1);
  fakes::write_hf_model(dir_ / "m", model, StorageType::kF32, 2);
  fakes::SafetensorsWriter extra;
  extra.add("model.layers.0.self_attn.rotary_emb.inv_freq", StorageType::kF32, {1}, "1234")
      .add("lm_head.weight", StorageType::kF32, {1}, "1234");
  extra.write(dir_ / "m/extra.safetensors");
  std::map<std::string, std::string> map;
  for (size_t i = 0; i < model.tensors.size(); ++i) {
    const auto& t = model.tensors[i];
    map[tensor_name(TensorSource::kHuggingFace, t.role, t.layer)] =
        i < model.tensors.size() / 2 ? "model-00001-of-00002.safetensors"
                                     : "model-00002-of-00002.safetensors";
  }
  for (const auto& t : extra.tensors) map[t.name] = "extra.safetensors";
  fakes::write_file(dir_ / "m/model.safetensors.index.json", fakes::safetensors_index(map));
  const auto files = ModelFiles::open(dir_ / "m");
  EXPECT_TRUE(files) << files.error().message;
}

class FingerprintTest : public ModelFilesTest {
 protected:
  Fingerprint of(const std::string& name, const fakes::TinyModel& model, int shards = 1) {
    fakes::write_hf_model(dir_ / name, model, StorageType::kF32, shards);
    auto files = ModelFiles::open(dir_ / name);
    if (!files) throw std::runtime_error(files.error().message);
    return files->fingerprint();
  }
  const ModelConfig config_ = fakes::tiny_config("qwen2");
};

TEST_F(FingerprintTest, FollowsTheWeightsAndNotTheFiles) {
  const fakes::TinyModel model = fakes::make_tiny_model(config_, 1);
  const Fingerprint one = of("a", model);
  EXPECT_EQ(of("b", model), one);
  EXPECT_EQ(of("sharded", model, 3), one);
  EXPECT_EQ(one.hex().size(), 64u);
  EXPECT_NE(one, Fingerprint());
}

TEST_F(FingerprintTest, TellsModelsApart) {
  const fakes::TinyModel model = fakes::make_tiny_model(config_, 1);
  std::set<std::string> seen = {of("a", model).hex(),
                                of("b", fakes::make_tiny_model(config_, 2)).hex()};
  fakes::TinyModel touched = model;
  touched.tensors.back().values.back() += 1;
  seen.insert(of("c", touched).hex());
  fakes::TinyModel hotter = model;
  hotter.config.rope_theta = 20000;
  seen.insert(of("d", hotter).hex());
  EXPECT_EQ(seen.size(), 4u);
  fakes::write_gguf_model(dir_ / "a.gguf", model);
  fakes::write_gguf_model(dir_ / "c.gguf", touched);
  const auto a = ModelFiles::open(dir_ / "a.gguf"), c = ModelFiles::open(dir_ / "c.gguf");
  ASSERT_TRUE(a && c);
  EXPECT_NE(a->fingerprint(), c->fingerprint());
}

TEST(TensorNames, FollowTheirFormats) {
  EXPECT_EQ(tensor_name(TensorSource::kGguf, TensorRole::kQ, 3), "blk.3.attn_q.weight");
  EXPECT_EQ(tensor_name(TensorSource::kGguf, TensorRole::kLmHead, 3), "output.weight");
  EXPECT_EQ(tensor_name(TensorSource::kHuggingFace, TensorRole::kMlpNorm, 12),
            "model.layers.12.post_attention_layernorm.weight");
  EXPECT_EQ(tensor_name(TensorSource::kHuggingFace, TensorRole::kRopeFactors), "");
  for (const TensorSource source : {TensorSource::kGguf, TensorSource::kHuggingFace}) {
    std::set<std::string> names;
    for (const TensorRole role : all_tensor_roles()) names.insert(tensor_name(source, role));
    EXPECT_EQ(names.size(), all_tensor_roles().size());
  }
}

}  // namespace
}  // namespace baton::formats
