// Broken GGUF models and the sentence that each is refused with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <ostream>

#include "common/formats/model_files.h"
#include "tests/fakes/memory_file.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/tiny_model.h"

namespace baton::formats {
namespace {

using fakes::gguf_string;
using fakes::GgufWriter;
using fakes::little_endian;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr uint32_t kU8 = 0, kU32 = 4, kI32 = 5, kBool = 7, kString = 8, kArray = 9;

struct Broken {
  const char* what;
  std::function<void(GgufWriter&)> harm;
  const char* sentence;
  std::function<void(std::string&)> harm_bytes = {};
  void PrintTo(const Broken& b, std::ostream* out) { *out << b.what; }
};

std::string array(uint32_t element, uint64_t count, const std::string& bytes) {
  return little_endian(element) + little_endian(count) + bytes;
}

class BrokenGgufTest : public ::testing::TestWithParam<Broken> {};

TEST_P(BrokenGgufTest, IsRefusedWithASentence) {
  const fakes::TempDir dir;
  GgufWriter writer =
      fakes::gguf_model(fakes::make_tiny_model(fakes::tiny_config("llama"), 1), StorageType::kQ8_0);
  GetParam().harm(writer);
  std::string bytes = writer.bytes();
  if (GetParam().harm_bytes) GetParam().harm_bytes(bytes);
  fakes::write_file(dir / "m.gguf", bytes);
  const auto files = ModelFiles::open(dir / "m.gguf");
  ASSERT_FALSE(files);
  const std::string& message = files.error().message;
  EXPECT_THAT(message, StartsWith((dir / "m.gguf").string() + ": "));
  EXPECT_THAT(message, HasSubstr(GetParam().sentence));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

void nothing(GgufWriter&) {}

const Broken kHeaders[] = {
    {"empty", nothing, "too short to be a GGUF file", [](std::string& b) { b.clear(); }},
    {"magic", [](auto& w) { w.magic = "GGML"; }, "not a GGUF file (it starts with 'GGML')"},
    {"zip", [](auto& w) { w.magic = "PK\x03\x04"; }, "it starts with 'PK\\x03\\x04'"},
    {"only_magic", nothing, "truncated in the header at byte 4",
     [](std::string& b) { b.resize(4); }},
    {"version_1", [](auto& w) { w.version = 1; }, "GGUF version 1 is not supported"},
    {"version_9", [](auto& w) { w.version = 9; }, "GGUF version 9 is not supported"},
    {"big_endian", [](auto& w) { w.version = 0x03000000; }, "a big-endian GGUF file"},
    {"many_keys", [](auto& w) { w.key_count = ~uint64_t{0}; },
     "18446744073709551615 metadata keys cannot fit in the file"},
    {"many_tensors", [](auto& w) { w.tensor_count = uint64_t{1} << 62; },
     "4611686018427387904 tensors cannot fit in the file"},
    {"more_tensors", [](auto& w) { w.tensor_count = w.tensors.size() + 1; },
     "the name of tensor 20 is empty"},
};

const Broken kKeys[] = {
    {"empty_key", [](auto& w) { w.set("", 1u); }, "is empty"},
    {"key_utf8", [](auto& w) { w.set("a\xff", 1u); }, "is not valid UTF-8"},
    {"key_length", [](auto& w) { w.set(std::string(65536, 'k'), 1u); },
     "has 65536 bytes, more than the 65535 allowed"},
    {"key_twice",
     [](auto& w) {
       w.set("twice", 1u);
       w.keys.push_back(w.keys.back());
     },
     "key 'twice' is there twice"},
    {"key_type", [](auto& w) { w.set_raw("odd", 13, "1234"); },
     "key 'odd' has the unknown type 13"},
    {"bool", [](auto& w) { w.set_raw("b", kBool, "\x02"); }, "key 'b' is a bool that is neither"},
    {"bools", [](auto& w) { w.set_raw("b", kArray, array(kBool, 2, "\x01\x02")); },
     "key 'b' holds a bool that is neither"},
    {"string_length", [](auto& w) { w.set_raw("s", kString, little_endian(~uint64_t{0})); },
     "the value of key 's' has 18446744073709551615 bytes"},
    {"string_utf8", [](auto& w) { w.set("s", std::string_view("\xc0\x80")); },
     "the value of key 's' is not valid UTF-8"},
    {"array_count", [](auto& w) { w.set_raw("a", kArray, array(kU32, uint64_t{1} << 62, "")); },
     "key 'a' claims 4611686018427387904 elements, more than the file can hold"},
    {"strings_count", [](auto& w) { w.set_raw("a", kArray, array(kString, ~uint64_t{0}, "")); },
     "key 'a' claims 18446744073709551615 elements"},
    {"strings_length",
     [](auto& w) { w.set_raw("a", kArray, array(kString, 1, little_endian(~uint64_t{7}))); },
     "truncated in element 0 of key 'a'"},
    {"strings_utf8",
     [](auto& w) {
       w.set("a", std::vector<std::string>{"ok", "\xff"});
     },
     "key 'a' has an element 1 that is not valid UTF-8"},
    {"nested_array", [](auto& w) { w.set_raw("a", kArray, array(kArray, 1, array(kU8, 1, "x"))); },
     "key 'a' is an array of the unsupported type 9"},
    {"alignment_0", [](auto& w) { w.set("general.alignment", 0u); },
     "key 'general.alignment' is 0, not a power of two"},
    {"alignment_48", [](auto& w) { w.set("general.alignment", 48u); }, "is 48, not a power of two"},
    {"alignment_text", [](auto& w) { w.set("general.alignment", std::string_view("32")); },
     "key 'general.alignment' must be an integer"},
};

const Broken kTensors[] = {
    {"no_name", [](auto& w) { w.tensors[2].name = ""; }, "the name of tensor 2 is empty"},
    {"name_utf8", [](auto& w) { w.tensors[2].name = "\xff"; },
     "the name of tensor 2 is not valid UTF-8"},
    {"name_length", [](auto& w) { w.tensors[0].name = std::string(257, 'n'); },
     "the name of tensor 0 has 257 bytes, more than the 256"},
    {"name_twice", [](auto& w) { w.tensors[3].name = w.tensors[2].name; }, "is there twice"},
    {"no_dims", [](auto& w) { w.tensor("blk.0.attn_q.weight").shape.clear(); },
     "tensor 'blk.0.attn_q.weight': has 0 dimensions, not 1 to 4"},
    {"five_dims",
     [](auto& w) {
       w.tensor("output_norm.weight").shape = {1, 1, 1, 1, 64};
     },
     "tensor 'output_norm.weight': has 5 dimensions"},
    {"dim_0", [](auto& w) { w.tensor("output_norm.weight").shape = {0}; },
     "tensor 'output_norm.weight': shape [0] has a dimension of 0"},
    {"overflow",
     [](auto& w) {
       w.tensor("blk.0.attn_q.weight").shape = {uint64_t{1} << 60, 1 << 20};
     },
     "tensor 'blk.0.attn_q.weight': shape [1152921504606846976, 1048576] overflows 64 bits"},
    {"bytes_overflow", [](auto& w) { w.tensor("output_norm.weight").shape = {uint64_t{1} << 62}; },
     "overflows 64 bits"},
    {"part_block",
     [](auto& w) {
       w.tensor("blk.1.ffn_up.weight").shape = {128, 63};
     },
     "tensor 'blk.1.ffn_up.weight': shape [128, 63] has rows that are not whole Q8_0 blocks of 32"},
    {"type_99", [](auto& w) { w.tensor("blk.1.ffn_up.weight").type = 99; },
     "tensor 'blk.1.ffn_up.weight': unknown type 99"},
    {"type_iq", [](auto& w) { w.tensor("blk.1.ffn_up.weight").type = 23; },
     "tensor 'blk.1.ffn_up.weight': type IQ4_XS is not supported"},
    {"misaligned", [](auto& w) { w.tensor("blk.1.ffn_up.weight").offset = 33; },
     "tensor 'blk.1.ffn_up.weight': its offset 33 is not a multiple of the alignment 32"},
    {"out_of_range", [](auto& w) { w.tensor("blk.1.ffn_up.weight").offset = uint64_t{1} << 40; },
     "tensor 'blk.1.ffn_up.weight': needs 8704 bytes at offset 1099511627776 but the file has "
     "only"},
    {"offset_wraps", [](auto& w) { w.tensor("blk.1.ffn_up.weight").offset = ~uint64_t{31}; },
     "at offset 18446744073709551584 but the file has only"},
    {"overlap", [](auto& w) { w.tensor("blk.1.ffn_up.weight").offset = 64; }, "overlaps tensor"},
    {"same_bytes",
     [](auto& w) {
       w.tensor("token_embd.weight").offset = 0;
       w.tensors[1].offset = 0;
     },
     "overlaps tensor"},
    {"truncated_data", nothing, "bytes of data", [](std::string& b) { b.resize(b.size() - 32); }},
    {"truncated_half", nothing, "bytes of data", [](std::string& b) { b.resize(b.size() / 2); }},
};

const Broken kModels[] = {
    {"no_architecture", [](auto& w) { w.erase("general.architecture"); },
     "key 'general.architecture' is missing"},
    {"architecture", [](auto& w) { w.set("general.architecture", std::string_view("gemma3")); },
     "key 'general.architecture' is 'gemma3', an architecture that is not supported"},
    {"split", [](auto& w) { w.set("split.count", 3u); },
     "key 'split.count' is 3: split models are not supported"},
    {"architecture_type", [](auto& w) { w.set("general.architecture", 3u); },
     "key 'general.architecture' must be a string"},
    {"no_layers", [](auto& w) { w.set("llama.block_count", 0u); },
     "key 'llama.block_count' is 0, not 1 to 1024"},
    {"missing_size", [](auto& w) { w.erase("llama.embedding_length"); },
     "key 'llama.embedding_length' is missing"},
    {"negative_size", [](auto& w) { w.set_raw("llama.block_count", kI32, little_endian(-2)); },
     "key 'llama.block_count' must not be negative but is -2"},
    {"float_size", [](auto& w) { w.set("llama.block_count", 2.0f); },
     "key 'llama.block_count' must be an integer"},
    {"no_heads", [](auto& w) { w.set("llama.attention.head_count", 0u); },
     "key 'llama.attention.head_count' is 0"},
    {"kv_heads", [](auto& w) { w.set("llama.attention.head_count_kv", 3u); },
     "4 attention heads are not a multiple of 3 key-value heads"},
    {"heads_per_layer",
     [](auto& w) {
       w.set("llama.attention.head_count", std::vector<int32_t>{4, 4});
     },
     "key 'llama.attention.head_count' must be an integer"},
    {"undivided",
     [](auto& w) { w.erase("llama.attention.key_length").set("llama.attention.head_count", 6u); },
     "key 'llama.attention.head_count' is 6, which does not divide the width 64"},
    {"value_length", [](auto& w) { w.set("llama.attention.value_length", 8u); },
     "key 'llama.attention.value_length' is 8, which is not supported beside a head size of 16"},
    {"partial_rope", [](auto& w) { w.set("llama.rope.dimension_count", 8u); },
     "key 'llama.rope.dimension_count' is 8"},
    {"no_eps", [](auto& w) { w.erase("llama.attention.layer_norm_rms_epsilon"); },
     "key 'llama.attention.layer_norm_rms_epsilon' is missing"},
    {"nan_eps", [](auto& w) { w.set("llama.attention.layer_norm_rms_epsilon", NAN); },
     "key 'llama.attention.layer_norm_rms_epsilon' must be finite"},
    {"theta", [](auto& w) { w.set("llama.rope.freq_base", -1.0f); }, "the RoPE base -1"},
    {"yarn", [](auto& w) { w.set("llama.rope.scaling.type", std::string_view("yarn")); },
     "key 'llama.rope.scaling.type' is 'yarn', which is not supported"},
    {"experts", [](auto& w) { w.set("llama.expert_count", 8u); },
     "key 'llama.expert_count' is 8: experts are not supported"},
    {"window", [](auto& w) { w.set("llama.attention.sliding_window", 128u); },
     "key 'llama.attention.sliding_window' is 128: a sliding window is not supported"},
    {"no_vocabulary", [](auto& w) { w.erase("tokenizer.ggml.tokens"); },
     "key 'tokenizer.ggml.tokens' must tell the size of the vocabulary"},
    {"eos_range", [](auto& w) { w.set("tokenizer.ggml.eos_token_id", 320u); },
     "the eos token id 320 is not in the vocabulary of 320"},
    {"bos_range", [](auto& w) { w.set("tokenizer.ggml.bos_token_id", 0xffffffffu); },
     "key 'tokenizer.ggml.bos_token_id' is 4294967295, which is no token id"},
    {"missing_tensor", [](auto& w) { w.erase_tensor("blk.1.ffn_gate.weight"); },
     "tensor 'blk.1.ffn_gate.weight' is missing"},
    {"missing_layer", [](auto& w) { w.set("llama.block_count", 3u); },
     "tensor 'blk.2.attn_norm.weight' is missing"},
    {"extra_layer", [](auto& w) { w.set("llama.block_count", 1u); },
     "has no place in a llama model of 1 layers"},
    {"vocabulary_size", [](auto& w) { w.set("llama.vocab_size", 321u); },
     "tensor 'token_embd.weight': shape [320, 64] is not the [321, 64] that the configuration"},
    {"transposed",
     [](auto& w) {
       w.tensor("blk.0.ffn_up.weight").shape = {64, 128};
     },
     "tensor 'blk.0.ffn_up.weight': shape [64, 128] is not the [128, 64]"},
    {"matrix_norm",
     [](auto& w) {
       w.tensor("output_norm.weight").shape = {1, 64};
     },
     "tensor 'output_norm.weight': shape [1, 64] is not the [64]"},
    {"unknown_bias",
     [](auto& w) {
       w.add("blk.0.attn_output.bias", StorageType::kF32, {64}, std::string(256, '\0'));
     },
     "tensor 'blk.0.attn_output.bias' has no place in a llama model of 2 layers"},
    {"rope_factors",
     [](auto& w) { w.add("rope_freqs.weight", StorageType::kF32, {8}, std::string(32, '\0')); },
     "tensor 'rope_freqs.weight': must hold F32 factors that are finite and over 0"},
};

std::string what(const ::testing::TestParamInfo<Broken>& info) { return info.param.what; }
INSTANTIATE_TEST_SUITE_P(Headers, BrokenGgufTest, ::testing::ValuesIn(kHeaders), what);
INSTANTIATE_TEST_SUITE_P(Keys, BrokenGgufTest, ::testing::ValuesIn(kKeys), what);
INSTANTIATE_TEST_SUITE_P(Tensors, BrokenGgufTest, ::testing::ValuesIn(kTensors), what);
INSTANTIATE_TEST_SUITE_P(Models, BrokenGgufTest, ::testing::ValuesIn(kModels), what);

// Every truncation, and many single-byte changes, of a whole small model: a model or a sentence,
// never a crash (the sanitizers watch).
TEST(BrokenGguf, NoTruncationAndNoFlippedByteCrashes) {
  ModelConfig config = fakes::tiny_config("llama");
  config.num_layers = 1;
  GgufWriter writer = fakes::gguf_model(fakes::make_tiny_model(config, 1), StorageType::kQ4_0);
  writer.erase("tokenizer.ggml.merges").erase("tokenizer.ggml.token_type");
  const std::string whole = writer.bytes();
  const fakes::MemoryFile sound(whole);
  const auto good = GgufFile::open(sound.path());
  ASSERT_TRUE(good) << good.error().message;
  const size_t header = good->header().size();

  for (size_t size = 0; size < header; ++size) {
    const fakes::MemoryFile file(std::string_view(whole).substr(0, size));
    const auto files = ModelFiles::open(file.path());
    ASSERT_FALSE(files) << size;
    ASSERT_THAT(files.error().message, StartsWith(file.path()));
  }
  uint32_t state = 7;
  for (int round = 0; round < 2000; ++round) {
    state = state * 1664525u + 1013904223u;
    std::string broken = whole;
    broken[(state >> 8) % header] ^= static_cast<char>(1u << (state & 7));
    const fakes::MemoryFile file(broken);
    const auto files = ModelFiles::open(file.path());
    if (files) continue;
    ASSERT_THAT(files.error().message, StartsWith(file.path()));
  }
}

}  // namespace
}  // namespace baton::formats
