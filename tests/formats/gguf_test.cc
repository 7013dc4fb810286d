#include "common/formats/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/encode.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/temp_dir.h"

namespace baton::formats {
namespace {

using fakes::little_endian;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class GgufTest : public ::testing::Test {
 protected:
  GgufFile open() {
    writer_.write(dir_ / "m.gguf");
    auto file = GgufFile::open(dir_ / "m.gguf");
    if (!file) throw std::runtime_error(file.error().message);
    return std::move(*file);
  }

  const fakes::TempDir dir_;
  fakes::GgufWriter writer_;
};

TEST_F(GgufTest, ReadsAFileOfNothing) {
  const GgufFile file = open();
  EXPECT_EQ(file.metadata().size(), 0u);
  EXPECT_TRUE(file.tensors().tensors().empty());
}

TEST_F(GgufTest, ReadsEveryScalarType) {
  writer_.set_raw("u8", 0, little_endian(uint8_t{200}))
      .set_raw("i8", 1, little_endian(int8_t{-3}))
      .set_raw("u16", 2, little_endian(uint16_t{60000}))
      .set_raw("i16", 3, little_endian(int16_t{300}))
      .set_raw("i32", 5, little_endian(int32_t{-70000}))
      .set_raw("u64", 10, little_endian(~uint64_t{0}))
      .set_raw("i64", 11, little_endian(int64_t{1} << 40))
      .set_raw("f64", 12, little_endian(0.1))
      .set("u32", 7u)
      .set("f32", 0.5f)
      .set_bool("yes", true)
      .set_bool("no", false)
      .set("text", std::string_view("h\xc3\xa9"));
  const GgufFile file = open();
  const GgufMetadata& m = file.metadata();
  EXPECT_EQ(*m.uint("u8"), 200u);
  EXPECT_EQ(*m.uint("u16"), 60000u);
  EXPECT_EQ(*m.uint("i16"), 300u);
  EXPECT_EQ(*m.uint("u32"), 7u);
  EXPECT_EQ(*m.uint("u64"), ~uint64_t{0});
  EXPECT_EQ(*m.uint("i64"), uint64_t{1} << 40);
  EXPECT_EQ(*m.number("f32"), 0.5);
  EXPECT_EQ(*m.number("f64"), 0.1);
  EXPECT_EQ(*m.boolean("yes"), true);
  EXPECT_EQ(*m.boolean("no"), false);
  EXPECT_EQ(*m.string("text"), "h\xc3\xa9");
  EXPECT_THAT(m.uint("i8").error().message, HasSubstr("key 'i8' must not be negative but is -3"));
  EXPECT_FALSE(m.uint("i32"));
}

TEST_F(GgufTest, ReadsArrays) {
  writer_.set("strings", std::vector<std::string>{"a", "", "\xf0\x9f\x99\x82"})
      .set("ints", std::vector<int32_t>{1, -2})
      .set("floats", std::vector<float>{0.5f, -1000})
      .set_raw(
          "u64s", 9,
          little_endian(uint32_t{10}) + little_endian(uint64_t{1}) + little_endian(~uint64_t{0}))
      .set_raw("u8s", 9, little_endian(uint32_t{0}) + little_endian(uint64_t{2}) + "\x01\xff")
      .set_raw("empty", 9, little_endian(uint32_t{8}) + little_endian(uint64_t{0}));
  const GgufFile file = open();
  const GgufMetadata& m = file.metadata();
  EXPECT_THAT(*m.strings("strings"), ElementsAre("a", "", "\xf0\x9f\x99\x82"));
  EXPECT_THAT(*m.ints("ints"), ElementsAre(1, -2));
  EXPECT_THAT(*m.ints("u8s"), ElementsAre(1, 255));
  EXPECT_THAT(*m.floats("floats"), ElementsAre(0.5f, -1000));
  EXPECT_TRUE(m.strings("empty")->empty());
  EXPECT_THAT(m.ints("u64s").error().message, HasSubstr("over 2^63"));
  EXPECT_THAT(m.strings("ints").error().message, HasSubstr("must hold strings but holds i32"));
  EXPECT_THAT(m.ints("strings").error().message, HasSubstr("must hold integers but holds string"));
  EXPECT_THAT(m.floats("ints").error().message, HasSubstr("must hold f32 but holds i32"));
}

TEST_F(GgufTest, NamesFileAndKeyOfAWrongType) {
  writer_.set("text", std::string_view("x")).set("inf", INFINITY);
  const GgufFile file = open();
  const GgufMetadata& m = file.metadata();
  const std::string where = (dir_ / "m.gguf").string();
  EXPECT_EQ(m.uint("none").error().message, where + ": key 'none' is missing");
  EXPECT_EQ(m.uint("none").error().code, Errc::kNotFound);
  EXPECT_EQ(m.uint("text").error().message, where + ": key 'text' must be an integer");
  EXPECT_EQ(m.uint("text").error().code, Errc::kDataCorrupt);
  EXPECT_EQ(m.number("text").error().message,
            where + ": key 'text' must be a floating-point number");
  EXPECT_EQ(m.number("inf").error().message, where + ": key 'inf' must be finite");
  EXPECT_EQ(m.boolean("text").error().message, where + ": key 'text' must be a bool");
  EXPECT_EQ(m.string("inf").error().message, where + ": key 'inf' must be a string");
  EXPECT_EQ(m.strings("text").error().message, where + ": key 'text' must be an array");
}

TEST_F(GgufTest, ReadsTensorsOutermostFirst) {
  const std::vector<float> values = {0, 1, 2, 3, 4, 5};
  writer_.add("m", StorageType::kF32, {2, 3}, fakes::encode(StorageType::kF32, values))
      .add("q", StorageType::kQ8_0, {32}, fakes::encode(StorageType::kQ8_0, std::vector(32, 1.f)));
  const GgufFile file = open();
  const TensorView* m = file.tensors().find("m");
  ASSERT_TRUE(m);
  EXPECT_THAT(m->shape, ElementsAre(2u, 3u));
  EXPECT_EQ(m->elements(), 6u);
  EXPECT_EQ(m->type, StorageType::kF32);
  std::vector<float> read(6);
  dequantize(m->type, m->data, read);
  EXPECT_EQ(read, values);
  EXPECT_EQ(file.tensors().find("q")->data.size(), 34u);
  EXPECT_EQ(file.tensors().find("none"), nullptr);
  EXPECT_EQ(file.tensors().tensors().size(), 2u);
}

TEST_F(GgufTest, HonoursTheAlignmentKeyAndVersion2) {
  writer_.version = 2;
  writer_.alignment = 256;
  writer_.set("general.alignment", 256u)
      .add("a", StorageType::kF16, {1}, "\x01\x3c")
      .add("b", StorageType::kF16, {1}, "\x02\x3c");
  const GgufFile file = open();
  EXPECT_EQ(file.tensors().find("b")->data.data() - file.tensors().find("a")->data.data(), 256);
  EXPECT_EQ(file.tensors().find("b")->data[0], std::byte{2});
}

TEST_F(GgufTest, ViewsSurviveMoves) {
  writer_.set("text", std::string_view("hello")).add("a", StorageType::kF16, {1}, "\x01\x3c");
  GgufFile first = open();
  const GgufFile second = std::move(first);
  EXPECT_EQ(*second.metadata().string("text"), "hello");
  const TensorFile tensors = *TensorFile::open(dir_ / "m.gguf");
  EXPECT_EQ(tensors.find("a")->data[0], std::byte{1});
  EXPECT_EQ(second.tensors().find("a")->name, "a");
}

TEST_F(GgufTest, HeaderEndsWhereThePaddingBegins) {
  writer_.add("a", StorageType::kF16, {1}, "\x01\x3c");
  const GgufFile file = open();
  const std::string bytes = writer_.bytes();
  EXPECT_EQ(file.header().size(), 24u + 8 + 1 + 4 + 8 + 4 + 8);
}

}  // namespace
}  // namespace baton::formats
