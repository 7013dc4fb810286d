#include "common/formats/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ostream>

#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"

namespace baton::formats {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

result<ModelConfig> from_hf(const std::string& config, const std::string& generation = "",
                            const std::string& tokenizer = "") {
  const auto fields = [](const boost::json::value& value, const char* source) {
    return std::optional<JsonFields>(*JsonFields::root(value, source));
  };
  BATON_TRY(const auto config_value, parse_json(config, "config.json"));
  std::optional<JsonFields> generation_fields, tokenizer_fields;
  boost::json::value generation_value, tokenizer_value;
  if (!generation.empty()) {
    generation_value = *parse_json(generation, "generation_config.json");
    generation_fields = fields(generation_value, "generation_config.json");
  }
  if (!tokenizer.empty()) {
    tokenizer_value = *parse_json(tokenizer, "tokenizer_config.json");
    tokenizer_fields = fields(tokenizer_value, "tokenizer_config.json");
  }
  return model_config_from_hf(*fields(config_value, "config.json"), generation_fields,
                              tokenizer_fields);
}

// Fields that every config has, and `more`, which begins with a comma or is empty.
std::string hf(const std::string& model_type, const std::string& more = "") {
  return R"({"model_type": ")" + model_type + R"(", "num_hidden_layers": 2, "hidden_size": 64,)" +
         R"("intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,)" +
         R"("vocab_size": 100, "max_position_embeddings": 4096)" + more + "}";
}

TEST(ModelConfigHf, FillsInTheDefaults) {
  const auto c = from_hf(hf("llama"));
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->head_dim, 16u);
  EXPECT_EQ(c->rms_norm_eps, 1e-6f);
  EXPECT_EQ(c->rope_theta, 10000);
  EXPECT_FALSE(c->tie_embeddings);
  EXPECT_FALSE(c->bos_id);
  EXPECT_FALSE(c->add_bos);
  EXPECT_THAT(c->eos_ids, IsEmpty());
  EXPECT_EQ(from_hf(hf("qwen3"))->head_dim, 128u);
  EXPECT_EQ(from_hf(hf("qwen3", R"(, "head_dim": 32)"))->head_dim, 32u);
  EXPECT_EQ(from_hf(hf("mistral", R"(, "head_dim": null)"))->head_dim, 16u);
}

TEST(ModelConfigHf, UnitesTheEosIdsOfBothFiles) {
  const auto c = from_hf(hf("llama", R"(, "eos_token_id": [9, 3], "bos_token_id": 1)"),
                         R"({"eos_token_id": [3, 7]})", R"({"add_bos_token": true})");
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_THAT(c->eos_ids, ElementsAre(3, 7, 9));
  EXPECT_EQ(c->bos_id, 1);
  EXPECT_TRUE(c->add_bos);
  EXPECT_THAT(from_hf(hf("llama", R"(, "eos_token_id": 5)"), R"({"eos_token_id": 6})")->eos_ids,
              ElementsAre(5, 6));
}

TEST(ModelConfigHf, ReadsBothWaysToWriteRopeScaling) {
  const std::string numbers = R"("factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,)"
                              R"("original_max_position_embeddings": 8192)";
  const auto old_way =
      from_hf(hf("llama", R"(, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", )" +
                              numbers + "}"));
  const auto new_way =
      from_hf(hf("llama", R"(, "rope_parameters": {"rope_theta": 500000, "rope_type": "llama3", )" +
                              numbers + "}"));
  for (const auto& c : {old_way, new_way}) {
    ASSERT_TRUE(c) << c.error().message;
    EXPECT_EQ(c->rope_theta, 500000);
    EXPECT_EQ(c->rope_scaling, RopeScaling::kLlama3);
    EXPECT_EQ(c->rope_factor, 32);
    EXPECT_EQ(c->rope_low_freq_factor, 1);
    EXPECT_EQ(c->rope_high_freq_factor, 4);
    EXPECT_EQ(c->rope_original_max_position, 8192u);
  }
  const auto linear = from_hf(hf("llama", R"(, "rope_scaling": {"type": "linear", "factor": 2})"));
  ASSERT_TRUE(linear) << linear.error().message;
  EXPECT_EQ(linear->rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(linear->rope_factor, 2);
  const auto none = from_hf(hf("llama", R"(, "rope_scaling": {"rope_type": "default"})"));
  EXPECT_EQ(none->rope_scaling, RopeScaling::kNone);
}

TEST(ModelConfigHf, LetsAWindowPassThatIsNotInForce) {
  EXPECT_TRUE(from_hf(hf("mistral", R"(, "sliding_window": null)")));
  EXPECT_TRUE(from_hf(hf("mistral", R"(, "sliding_window": 4096)")));  // as long as the context
  EXPECT_TRUE(from_hf(hf("qwen2", R"(, "sliding_window": 1024, "use_sliding_window": false)")));
  EXPECT_TRUE(from_hf(hf("qwen3", R"(, "sliding_window": 1024)")));
  EXPECT_TRUE(from_hf(hf("qwen2", R"(, "layer_types": ["full_attention", "full_attention"])")));
}

struct BadConfig {
  const char* what;
  std::string json;
  const char* sentence;
};
void PrintTo(const BadConfig& b, std::ostream* out) { *out << b.what; }
class BadConfigTest : public ::testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithASentence) {
  const auto config = from_hf(GetParam().json);
  ASSERT_FALSE(config);
  EXPECT_THAT(config.error().message, HasSubstr("config.json: "));
  EXPECT_THAT(config.error().message, HasSubstr(GetParam().sentence));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadConfigTest,
    ::testing::Values(
        BadConfig{"architecture", hf("gemma2"), "field 'model_type' is 'gemma2', an architecture"},
        BadConfig{"no_type", "{}", "field 'model_type' is missing"},
        BadConfig{"no_kv_heads", R"({"model_type": "qwen2", "num_hidden_layers": 2,
            "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4,
            "vocab_size": 100, "max_position_embeddings": 4096})",
                  "field 'num_key_value_heads' is missing"},
        BadConfig{"odd_head", hf("llama", R"(, "head_dim": 15)"), "the head size 15 is odd"},
        BadConfig{"huge_head", hf("llama", R"(, "head_dim": 1e9)"), "is 1000000000, not 1 to 4096"},
        BadConfig{"window", hf("mistral", R"(, "sliding_window": 1024)"),
                  "field 'sliding_window' is 1024: a sliding window is not supported"},
        BadConfig{"qwen_window",
                  hf("qwen2", R"(, "sliding_window": 1024, "use_sliding_window": true)"),
                  "a sliding window is not supported"},
        BadConfig{"layer_types", hf("qwen3", R"(, "layer_types": ["sliding_attention"])"),
                  "field 'layer_types' names a layer that is not 'full_attention'"},
        BadConfig{"yarn", hf("qwen3", R"(, "rope_scaling": {"rope_type": "yarn", "factor": 4})"),
                  "field 'rope_scaling.rope_type' is 'yarn', which is not supported"},
        BadConfig{"llama3_part", hf("llama", R"(, "rope_scaling": {"rope_type": "llama3"})"),
                  "field 'rope_scaling.factor' is missing"},
        BadConfig{"llama3_order",
                  hf("llama", R"(, "rope_scaling": {"rope_type": "llama3", "factor": 8,
                      "low_freq_factor": 4, "high_freq_factor": 4,
                      "original_max_position_embeddings": 64})"),
                  "the RoPE frequency factors 4 and 4 are not in order"},
        BadConfig{"factor_0", hf("llama", R"(, "rope_scaling": {"type": "linear", "factor": 0})"),
                  "the RoPE scaling factor 0 is not over 0"},
        BadConfig{"theta", hf("llama", R"(, "rope_theta": 1e300)"), "the RoPE base inf"},
        BadConfig{"eps", hf("llama", R"(, "rms_norm_eps": 0)"), "the RMSNorm epsilon 0"},
        BadConfig{"eps_text", hf("llama", R"(, "rms_norm_eps": "1e-6")"),
                  "field 'rms_norm_eps' must be a number"},
        BadConfig{"bias", hf("llama", R"(, "attention_bias": true)"),
                  "field 'attention_bias' is true"},
        BadConfig{"mlp_bias", hf("llama", R"(, "mlp_bias": true)"), "field 'mlp_bias' is true"},
        BadConfig{"activation", hf("llama", R"(, "hidden_act": "gelu")"),
                  "field 'hidden_act' is 'gelu', not 'silu'"},
        BadConfig{"quantized", hf("llama", R"(, "quantization_config": {})"),
                  "field 'quantization_config' is set"},
        BadConfig{"partial", hf("llama", R"(, "partial_rotary_factor": 0.5)"),
                  "field 'partial_rotary_factor' is not 1"},
        BadConfig{"eos_text", hf("llama", R"(, "eos_token_id": "</s>")"),
                  "field 'eos_token_id' must be a token id or a list of them"},
        BadConfig{"eos_negative", hf("llama", R"(, "eos_token_id": [1, -1])"),
                  "field 'eos_token_id' must be a token id"},
        BadConfig{"eos_range", hf("llama", R"(, "eos_token_id": 100)"),
                  "the eos token id 100 is not in the vocabulary of 100"},
        BadConfig{"bos_range", hf("llama", R"(, "bos_token_id": 4000000000)"),
                  "field 'bos_token_id' must be a token id"}),
    [](const auto& info) { return info.param.what; });

class ModelConfigGgufTest : public ::testing::Test {
 protected:
  result<ModelConfig> read() {
    writer_.write(dir_ / "m.gguf");
    BATON_TRY(const GgufFile file, GgufFile::open(dir_ / "m.gguf"));
    return model_config_from_gguf(file);
  }

  const fakes::TempDir dir_;
  fakes::GgufWriter writer_ =
      fakes::gguf_model(fakes::make_tiny_model(fakes::tiny_config("llama"), 1), StorageType::kF32);
};

TEST_F(ModelConfigGgufTest, FillsInTheDefaults) {
  writer_.erase("llama.attention.key_length")
      .erase("llama.attention.head_count_kv")
      .erase("llama.rope.freq_base");
  const auto c = read();
  ASSERT_TRUE(c) << c.error().message;
  EXPECT_EQ(c->head_dim, 16u);
  EXPECT_EQ(c->num_kv_heads, 4u);
  EXPECT_EQ(c->rope_theta, 10000);
  EXPECT_EQ(c->vocab_size, 320u);
}

TEST_F(ModelConfigGgufTest, CollectsEveryEndToken) {
  writer_.set("tokenizer.ggml.eot_token_id", 12u).set("tokenizer.ggml.eom_token_id", 319u);
  EXPECT_THAT(read()->eos_ids, ElementsAre(12, 319));
}

TEST_F(ModelConfigGgufTest, AddsBosWhereTheVocabularyAlwaysDoes) {
  EXPECT_FALSE(read()->add_bos);
  writer_.erase("tokenizer.ggml.add_bos_token");
  EXPECT_FALSE(read()->add_bos);
  writer_.set("tokenizer.ggml.pre", std::string_view("llama-bpe"));
  EXPECT_TRUE(read()->add_bos);
  writer_.erase("tokenizer.ggml.bos_token_id");
  EXPECT_FALSE(read()->add_bos);
}

TEST_F(ModelConfigGgufTest, ReadsLinearScaling) {
  writer_.set("llama.rope.scaling.type", std::string_view("linear"))
      .set("llama.rope.scaling.factor", 4.0f);
  EXPECT_EQ(read()->rope_scaling, RopeScaling::kLinear);
  EXPECT_EQ(read()->rope_factor, 4);
}

}  // namespace
}  // namespace baton::formats
