// Broken Hugging Face directories and the sentence that each is refused with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <ostream>
#include <sstream>

#include "common/formats/model_files.h"
#include "common/formats/safetensors.h"
#include "tests/fakes/memory_file.h"
#include "tests/fakes/safetensors_writer.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"

namespace baton::formats {
namespace {

using fakes::SafetensorsWriter;
using ::testing::HasSubstr;
using ::testing::StartsWith;

struct BrokenFile {
  const char* what;
  std::function<void(SafetensorsWriter&)> harm;
  const char* sentence;
  std::function<void(std::string&)> harm_bytes = {};
  void PrintTo(const BrokenFile& b, std::ostream* out) { *out << b.what; }
};

SafetensorsWriter two_tensors() {
  SafetensorsWriter writer;
  writer.add("a", StorageType::kF32, {2, 2}, std::string(16, 'a'));
  writer.add("b", StorageType::kBF16, {8}, std::string(16, 'b'));
  return writer;
}

class BrokenSafetensorsTest : public ::testing::TestWithParam<BrokenFile> {};

TEST_P(BrokenSafetensorsTest, IsRefusedWithASentence) {
  const fakes::TempDir dir;
  SafetensorsWriter writer = two_tensors();
  GetParam().harm(writer);
  std::string bytes = writer.bytes();
  if (GetParam().harm_bytes) GetParam().harm_bytes(bytes);
  fakes::write_file(dir / "m.safetensors", bytes);
  const auto file = TensorFile::open(dir / "m.safetensors");
  ASSERT_FALSE(file);
  EXPECT_THAT(file.error().message, StartsWith((dir / "m.safetensors").string() + ": "));
  EXPECT_THAT(file.error().message, HasSubstr(GetParam().sentence));
}

void nothing(SafetensorsWriter&) {}

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenSafetensorsTest,
    ::testing::Values(
        BrokenFile{"empty", nothing, "too short", [](std::string& b) { b.clear(); }},
        BrokenFile{"pickle", nothing, "not a safetensors file: a header of",
                   [](std::string& b) { b = "PK\x03\x04 a zip of pickles"; }},
        BrokenFile{"header_length", [](auto& w) { w.header_bytes = 1000; },
                   "truncated in the header: 1000 bytes are announced"},
        BrokenFile{"header_huge", [](auto& w) { w.header_bytes = ~uint64_t{0}; },
                   "a header of 18446744073709551615 bytes"},
        BrokenFile{"header_zero", [](auto& w) { w.header_bytes = 0; }, "not valid JSON"},
        BrokenFile{"not_json", [](auto& w) { w.json = "{\"a\": "; }, "not valid JSON"},
        BrokenFile{"not_object", [](auto& w) { w.json = "[]"; }, "the JSON is not an object"},
        BrokenFile{"deep", [](auto& w) { w.json = std::string(1000, '['); }, "too deep"},
        BrokenFile{"name_twice",
                   [](auto& w) {
                     const std::string one =
                         R"("a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]})";
                     w.json = "{" + one + "," + one + "}";
                   },
                   "the key 'a' twice"},
        BrokenFile{"name_utf8", [](auto& w) { w.tensor("a").name = "\xff"; }, "not valid JSON"},
        BrokenFile{"no_name", [](auto& w) { w.tensor("a").name = ""; },
                   "tensor '': its name has 0 bytes"},
        BrokenFile{"entry", [](auto& w) { w.json = R"({"a": 3})"; },
                   "tensor 'a': the JSON is not an object"},
        BrokenFile{"no_dtype", [](auto& w) { w.json = R"({"a": {}})"; },
                   "tensor 'a': field 'dtype' is missing"},
        BrokenFile{"dtype", [](auto& w) { w.tensor("b").dtype = "F8_E4M3"; },
                   "tensor 'b': dtype 'F8_E4M3' is not supported"},
        BrokenFile{"shape",
                   [](auto& w) {
                     w.json = R"({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}})";
                   },
                   "tensor 'a': field 'shape' must hold whole numbers"},
        BrokenFile{"nine_dims", [](auto& w) { w.tensor("a").shape = {1, 1, 1, 1, 1, 1, 1, 2, 2}; },
                   "tensor 'a': field 'shape' has 9 numbers, more than 8"},
        BrokenFile{"dim_0",
                   [](auto& w) {
                     w.tensor("a").shape = {0, 4};
                   },
                   "tensor 'a': shape [0, 4] has a dimension of 0"},
        BrokenFile{"overflow",
                   [](auto& w) {
                     w.tensor("a").shape = {uint64_t{1} << 40, uint64_t{1} << 40};
                   },
                   "overflows 64 bits"},
        BrokenFile{"size",
                   [](auto& w) {
                     w.tensor("a").shape = {2, 3};
                   },
                   "tensor 'a': has 16 bytes of data but F32 [2, 3] needs 24"},
        BrokenFile{"backwards",
                   [](auto& w) {
                     w.tensor("a").offsets = {16, 0};
                   },
                   "tensor 'a': field 'data_offsets' must be a begin and an end"},
        BrokenFile{"one_offset",
                   [](auto& w) {
                     w.json = R"({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0]}})";
                   },
                   "field 'data_offsets' must be a begin and an end"},
        BrokenFile{"out_of_range",
                   [](auto& w) {
                     w.tensor("b").offsets = {32, 48};
                   },
                   "tensor 'b': ends at byte 48 but the file has only 32 bytes of data"},
        BrokenFile{"overlap",
                   [](auto& w) {
                     w.tensor("b").offsets = {8, 24};
                   },
                   "tensor 'b' overlaps tensor 'a'"},
        BrokenFile{"hole", nothing, "4 of 36 bytes of data belong to no tensor",
                   [](std::string& b) { b += "more"; }},
        BrokenFile{"truncated", nothing, "ends at byte 32 but the file has only 31",
                   [](std::string& b) { b.pop_back(); }}),
    [](const auto& info) { return info.param.what; });

struct BrokenModel {
  const char* what;
  std::function<void(const std::filesystem::path&)> harm;  // on the directory of a sound model
  const char* sentence;
};
void PrintTo(const BrokenModel& b, std::ostream* out) { *out << b.what; }

void replace(const std::filesystem::path& file, const std::string& from, const std::string& to) {
  std::ostringstream text;
  text << std::ifstream(file).rdbuf();
  std::string content = text.str();
  const size_t at = content.find(from);
  ASSERT_NE(at, std::string::npos) << from;
  fakes::write_file(file, content.replace(at, from.size(), to));
}

class BrokenDirectoryTest : public ::testing::TestWithParam<BrokenModel> {};

TEST_P(BrokenDirectoryTest, IsRefusedWithASentence) {
  const fakes::TempDir dir;
  fakes::write_hf_model(dir.path(), fakes::make_tiny_model(fakes::tiny_config("qwen2"), 1),
                        StorageType::kF32, 2);
  ASSERT_TRUE(ModelFiles::open(dir.path()));
  GetParam().harm(dir.path());
  const auto files = ModelFiles::open(dir.path());
  ASSERT_FALSE(files);
  EXPECT_THAT(files.error().message, StartsWith(dir.path().string()));
  EXPECT_THAT(files.error().message, HasSubstr(GetParam().sentence));
}

constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kShard2 = "model-00002-of-00002.safetensors";
using Path = std::filesystem::path;

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenDirectoryTest,
    ::testing::Values(
        BrokenModel{"no_config", [](const Path& d) { std::filesystem::remove(d / "config.json"); },
                    "config.json: cannot open the file"},
        BrokenModel{"no_weights", [](const Path& d) { std::filesystem::remove(d / kIndex); },
                    "holds neither model.safetensors nor"},
        BrokenModel{"no_shard", [](const Path& d) { std::filesystem::remove(d / kShard2); },
                    "index.json: the shard 'model-00002-of-00002.safetensors' is missing"},
        BrokenModel{"empty_shard", [](const Path& d) { fakes::write_file(d / kShard2, ""); },
                    "model-00002-of-00002.safetensors: too short"},
        BrokenModel{"cut_shard",
                    [](const Path& d) { std::filesystem::resize_file(d / kShard2, 20000); },
                    "but the file has only"},
        BrokenModel{"index_json", [](const Path& d) { fakes::write_file(d / kIndex, "{"); },
                    "index.json: not valid JSON"},
        BrokenModel{"index_empty",
                    [](const Path& d) { fakes::write_file(d / kIndex, R"({"weight_map": {}})"); },
                    "index.json: field 'weight_map' names no tensor"},
        BrokenModel{
            "index_type",
            [](const Path& d) { fakes::write_file(d / kIndex, R"({"weight_map": {"a": 1}})"); },
            "index.json: field 'weight_map.a' must be a string"},
        BrokenModel{"index_path",
                    [](const Path& d) {
                      fakes::write_file(d / kIndex, R"({"weight_map": {"a": "../../etc/passwd"}})");
                    },
                    "names the shard '../../etc/passwd', which is not a plain file name"},
        BrokenModel{
            "index_stray",
            [](const Path& d) { replace(d / kIndex, "model.norm.weight", "model.norm.stray"); },
            "index.json: tensor 'model.norm.stray' is not in the shard"},
        BrokenModel{"tensor_in_two_shards",
                    [](const Path& d) {
                      std::filesystem::copy_file(d / kShard2, d / "copy.safetensors");
                      replace(d / kIndex, "\"lm_head.weight\":\"model-00001-of-00002.safetensors\"",
                              "\"model.layers.1.mlp.down_proj.weight\":\"copy.safetensors\"");
                    },
                    "twice"},
        BrokenModel{"missing_tensor",
                    [](const Path& d) {
                      replace(d / "config.json", "\"num_hidden_layers\":2",
                              "\"num_hidden_layers\":3");
                    },
                    "tensor 'model.layers.2.input_layernorm.weight' is missing"},
        BrokenModel{
            "head_dim",
            [](const Path& d) { replace(d / "config.json", "\"head_dim\":16", "\"head_dim\":32"); },
            "tensor 'model.layers.0.self_attn.q_proj.weight': shape [64, 64] is not the"},
        BrokenModel{"stranger",
                    [](const Path& d) {
                      replace(d / "config.json", "\"model_type\":\"qwen2\"",
                              "\"model_type\":\"llama\"");
                    },
                    "tensor 'model.layers.0.self_attn.q_proj.bias' has no place in a llama model"},
        BrokenModel{"missing_norm",
                    [](const Path& d) {
                      replace(d / "config.json", "\"model_type\":\"qwen2\"",
                              "\"model_type\":\"qwen3\"");
                    },
                    "tensor 'model.layers.0.self_attn.q_norm.weight' is missing"},
        BrokenModel{"generation",
                    [](const Path& d) { fakes::write_file(d / "generation_config.json", "[]"); },
                    "generation_config.json: the JSON is not an object"},
        BrokenModel{"tokenizer_config",
                    [](const Path& d) {
                      fakes::write_file(d / "tokenizer_config.json", R"({"add_bos_token": 1})");
                    },
                    "tokenizer_config.json: field 'add_bos_token' must be true or false"}),
    [](const auto& info) { return info.param.what; });

TEST(BrokenSafetensors, NoTruncationAndNoFlippedByteCrashes) {
  const std::string whole = two_tensors().bytes();
  for (size_t size = 0; size < whole.size(); ++size) {
    const fakes::MemoryFile file(std::string_view(whole).substr(0, size));
    ASSERT_FALSE(open_safetensors(file.path())) << size;
  }
  for (size_t at = 0; at < whole.size(); ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string broken = whole;
      broken[at] ^= static_cast<char>(1 << bit);
      const fakes::MemoryFile file(broken);
      const auto tensors = open_safetensors(file.path());
      if (tensors) continue;
      ASSERT_THAT(tensors.error().message, StartsWith(file.path()));
    }
  }
}

}  // namespace
}  // namespace baton::formats
