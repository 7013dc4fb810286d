#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/device/cpu/cpu_device.h"
#include "common/model/model.h"
#include "common/ops/cpu/cpu_ops.h"
#include "tests/fakes/fake_gpu.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"
#include "tests/model/goldens.h"
#include "tests/model/model_under_test.h"

namespace baton::model {
namespace {

using testing::HasSubstr;

std::vector<std::vector<float>> logits(const std::filesystem::path& path) {
  ModelUnderTest m(path);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 70; ++i) tokens.push_back(i * 13 % 316);
  std::vector<std::vector<float>> rows;
  m.run(tokens, 0, ModelUnderTest::blocks(0, 8), 70,
        [&](uint32_t, std::span<const float> row) { rows.emplace_back(row.begin(), row.end()); });
  return rows;
}

float largest_difference(const std::vector<std::vector<float>>& a,
                         const std::vector<std::vector<float>>& b) {
  float largest = 0;
  for (size_t r = 0; r < a.size(); ++r) {
    for (size_t i = 0; i < a[r].size(); ++i) {
      largest = std::max(largest, std::abs(a[r][i] - b[r][i]));
    }
  }
  return largest;
}

// Both forms of one model: GGUF interleaves q and k rows of a llama, those of its biases too.
class BothForms : public testing::TestWithParam<std::string> {};

TEST_P(BothForms, GiveTheSameLogits) {
  const fakes::TempDir dir;
  formats::ModelConfig config = fakes::tiny_config(GetParam());
  const fakes::TinyModel model = fakes::make_tiny_model(config, 3);
  fakes::write_hf_model(dir / "hf", model);
  fakes::write_gguf_model(dir / "m.gguf", model);
  const auto hf = logits(dir / "hf"), gguf = logits(dir / "m.gguf");
  ASSERT_EQ(hf.size(), 70u);
  EXPECT_EQ(largest_difference(hf, gguf), 0);
}

INSTANTIATE_TEST_SUITE_P(Families, BothForms, testing::Values("llama", "mistral", "qwen2", "qwen3"),
                         [](const auto& info) { return info.param; });

// Llama 3's scaling stands in config.json as a rule, in GGUF as a tensor.
TEST(LoadForms, RopeFactorsOfAFileAreTheRuleOfADirectory) {
  const fakes::TempDir dir;
  formats::ModelConfig config = fakes::tiny_config("llama");
  config.rope_scaling = formats::RopeScaling::kLlama3;
  config.rope_factor = 8;
  config.rope_low_freq_factor = 1;
  config.rope_high_freq_factor = 4;
  config.rope_original_max_position = 64;
  const fakes::TinyModel scaled = fakes::make_tiny_model(config, 3);
  const fakes::TinyModel plain = fakes::make_tiny_model(fakes::tiny_config("llama"), 3);
  fakes::write_hf_model(dir / "scaled", scaled);
  fakes::write_hf_model(dir / "plain", plain);
  fakes::write_gguf_model(dir / "m.gguf", scaled);
  const auto expected = logits(dir / "scaled");
  EXPECT_LT(largest_difference(expected, logits(dir / "m.gguf")), 1e-3);
  EXPECT_GT(largest_difference(expected, logits(dir / "plain")), 0.1);
}

class Load : public testing::Test {
 protected:
  result<std::unique_ptr<Model>> load(const LoadOptions& options,
                                      const std::filesystem::path& path = data_dir() / "llama3") {
    return Model::load(formats::ModelFiles::open(path).value(), *device_, ops_, options);
  }
  void expect_refused(const LoadOptions& options, Errc code, const std::string& text) {
    const auto model = load(options);
    ASSERT_FALSE(model);
    EXPECT_EQ(model.error().code, code);
    EXPECT_THAT(model.error().message, HasSubstr(text));
  }

  std::unique_ptr<device::Device> device_ = device::make_cpu_device(1);
  const ops::Ops ops_ = ops::cpu_ops();
};

TEST_F(Load, SaysWhatTheModelIs) {
  const auto model = load({.max_rows = 32}).value();
  EXPECT_EQ(model->config().architecture, "llama");
  EXPECT_EQ(model->max_context(), 1024u);
  EXPECT_THAT(model->numerics(), HasSubstr(ops_.numerics));
  EXPECT_THAT(model->numerics(), HasSubstr("weights=bf16 cache=bf16"));
  EXPECT_NE(model->numerics(), load({.cache = DType::kF32, .max_rows = 32}).value()->numerics());
  // Matrices of 2 layers, head and embedding, in bf16.
  const size_t layer = 64 * (4 + 2 * 2) * 16 + 64 * 64 + 3 * 64 * 96;
  EXPECT_EQ(model->weight_bytes(), 2 * (2 * layer + 2 * 320 * 64));
}

TEST_F(Load, LaysTheCacheOut) {
  const auto model = load({.cache = DType::kF32, .max_rows = 32}).value();
  const kvcache::KvLayout layout = model->kv_layout(32);
  EXPECT_TRUE(layout.validate());
  EXPECT_EQ(layout.num_layers(), 2u);
  EXPECT_EQ(layout.num_heads(), 2u);
  EXPECT_EQ(layout.vector_bytes(), 16 * 4u);
  EXPECT_EQ(layout.block_tokens, 32u);
  EXPECT_NE(layout.rope,
            load({.max_rows = 32}, data_dir() / "mistral").value()->kv_layout(32).rope);
}

TEST_F(Load, KeyTellsWeightsAndTokenizersApart) {
  const fakes::TempDir dir;
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 3);
  fakes::write_hf_model(dir / "a", model);
  fakes::write_hf_model(dir / "b", model);
  fakes::write_hf_model(dir / "c", fakes::make_tiny_model(fakes::tiny_config("llama"), 4));
  const auto key = [&](const char* name) {
    return load({.max_rows = 1}, dir / name).value()->model_key();
  };
  EXPECT_EQ(key("a"), key("b"));
  EXPECT_NE(key("a").weights, key("c").weights);
  EXPECT_EQ(key("a").tokenizer, key("c").tokenizer);
  fakes::write_file(dir / "b/tokenizer.json", "{}");
  EXPECT_NE(key("a").tokenizer, key("b").tokenizer);
}

// The 12 KiB a tensor that opening the files samples are the same in both.
TEST_F(Load, KeyHasEveryByteOfTheWeightsInIt) {
  const fakes::TempDir dir;
  const fakes::TinyModel model = fakes::make_tiny_model(fakes::tiny_config("llama"), 3);
  const auto key = [&](const char* name, unsigned threads) {
    const auto device = device::make_cpu_device(threads);
    const auto files = formats::ModelFiles::open(dir / name).value();
    return Model::load(files, *device, ops_, {.max_rows = 1}).value()->model_key().weights;
  };
  fakes::write_hf_model(dir / "a", model);
  const std::string one = key("a", 1);
  EXPECT_EQ(key("a", 3), one);
  for (const size_t tensor : {size_t{0}, model.tensors.size() / 2, model.tensors.size() - 1}) {
    fakes::TinyModel touched = model;
    std::vector<float>& values = touched.tensors[tensor].values;
    values[values.size() / 3] += 0.5f;
    const std::string name = "touched" + std::to_string(tensor);
    fakes::write_hf_model(dir / name, touched);
    EXPECT_NE(key(name.c_str(), 1), one) << "tensor " << tensor;
  }
}

// One thread writes the tied embedding once; two copies would show in the bytes.
TEST_F(Load, TiedEmbeddingsAreKeptOnce) {
  const auto model = load({.max_rows = 32}, data_dir() / "qwen2").value();
  ASSERT_TRUE(model->config().tie_embeddings);
  const size_t layer = 64 * (4 + 2 * 2) * 16 + 64 * 64 + 3 * 64 * 96;
  EXPECT_EQ(model->weight_bytes(), 2 * (2 * layer + 320 * 64));
}

TEST_F(Load, ProgressGoesUpToAllBytes) {
  for (const char* name : {"llama3", "qwen2", "qwen3"}) {
    size_t last = 0, total = 0;
    const auto progress = [&](size_t done, size_t of) {
      EXPECT_GT(done, last);
      last = done;
      total = of;
    };
    ASSERT_TRUE(load({.max_rows = 32, .progress = progress}, data_dir() / name)) << name;
    EXPECT_GT(total, 0u);
    EXPECT_EQ(last, total) << name;
  }
}

TEST_F(Load, RefusesWhatItDoesNotOffer) {
  const std::string bf16_or_f32 = "on cpu each must be f32 or bf16";
  expect_refused({.weights = DType::kF16}, Errc::kUnsupported, bf16_or_f32);
  expect_refused({.cache = DType::kF16}, Errc::kUnsupported, bf16_or_f32);
  expect_refused({.max_context = 1025}, Errc::kInvalidArgument, "max_context 1025");
}

// Operations that compute in f16 take nothing else.
TEST(LoadF16, IsForOperationsThatComputeInIt) {
  device::FakeGpu gpu;
  ops::Ops ops = ops::fake_gpu_ops();
  ops.activation = ops.bf16_input = DType::kF16;
  const auto files = formats::ModelFiles::open(data_dir() / "llama3").value();
  const auto load = [&](DType weights, DType cache) {
    return Model::load(files, gpu, ops, {.weights = weights, .cache = cache, .max_rows = 8});
  };
  const auto model = load(DType::kF16, DType::kF16);
  ASSERT_TRUE(model);
  EXPECT_THAT((*model)->numerics(), HasSubstr("weights=f16 cache=f16"));
  EXPECT_EQ((*model)->kv_layout(16).dtype, DType::kF16);
  for (const DType other : {DType::kF32, DType::kBF16}) {
    EXPECT_THAT(load(other, DType::kF16).error().message, HasSubstr("each must be f16"));
    EXPECT_THAT(load(DType::kF16, other).error().message, HasSubstr("each must be f16"));
  }
}

TEST_F(Load, RefusesAHeadDimensionThatKernelsDoNotHave) {
  const fakes::TempDir dir;
  formats::ModelConfig config = fakes::tiny_config("llama");
  config.head_dim = 24;
  fakes::write_hf_model(dir / "m", fakes::make_tiny_model(config, 1));
  const auto model = load({}, dir / "m");
  ASSERT_FALSE(model);
  EXPECT_EQ(model.error().code, Errc::kUnsupported);
  EXPECT_THAT(model.error().message, HasSubstr("head_dim 24"));
}

// A device that has room for so many allocations.
class ShortOfMemory final : public device::Device {
 public:
  ShortOfMemory(device::Device& device, int allocations)
      : device_(device), allocations_(allocations) {}
  const device::DeviceInfo& info() const override { return device_.info(); }
  result<device::Buffer> allocate(size_t bytes) override {
    if (allocations_-- > 0) return device_.allocate(bytes);
    return error(Errc::kResourceExhausted, "the device is full");
  }
  result<device::Buffer> allocate_host(size_t bytes) override { return allocate(bytes); }
  result<device::Buffer> lock_host(void*, size_t) override { return device::Buffer(); }
  std::unique_ptr<device::Stream> make_stream() override { return device_.make_stream(); }
  void enter_thread() override { device_.enter_thread(); }
  void copy(device::Stream& s, void* to, const void* from, size_t bytes) override {
    device_.copy(s, to, from, bytes);
  }

 private:
  device::Device& device_;
  int allocations_;
};

TEST_F(Load, SaysWhereTheDeviceIsFullWhateverDoesNotFit) {
  const formats::ModelFiles files = formats::ModelFiles::open(data_dir() / "qwen3").value();
  int failures = 0;
  for (int room = 0;; ++room) {
    ShortOfMemory device(*device_, room);
    const auto model = Model::load(files, device, ops_, {.max_rows = 32});
    if (model) break;
    EXPECT_EQ(model.error().code, Errc::kResourceExhausted);
    ++failures;
  }
  // 2 layers of 4 vectors and 4 matrices, final norm, head, embedding, RoPE's frequencies,
  // workspace, what batches are brought in.
  EXPECT_EQ(failures, 2 * 8 + 6);
}

}  // namespace
}  // namespace baton::model
