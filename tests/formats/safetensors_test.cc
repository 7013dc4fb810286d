#include "common/formats/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/fakes/encode.h"
#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/safetensors_writer.h"
#include "tests/fakes/temp_dir.h"

namespace baton::formats {
namespace {

using ::testing::ElementsAre;

fakes::SafetensorsWriter one(const std::string& name, std::vector<float> values) {
  fakes::SafetensorsWriter writer;
  writer.add(name, StorageType::kF32, {values.size()}, fakes::encode(StorageType::kF32, values));
  return writer;
}

std::vector<float> values(const TensorView& view) {
  std::vector<float> out(view.elements());
  dequantize(view.type, view.data, out);
  return out;
}

TEST(Safetensors, ReadsOneFile) {
  const fakes::TempDir dir;
  fakes::SafetensorsWriter writer = one("a", {1, 2, 3});
  const std::vector<float> m = {1, -2, 3, -4};
  writer.add("m", StorageType::kBF16, {2, 2}, fakes::encode(StorageType::kBF16, m));
  writer.add("h", StorageType::kF16, {2, 2}, fakes::encode(StorageType::kF16, m));
  writer.add("scalar", StorageType::kF32, {}, fakes::encode(StorageType::kF32, {{7}}));
  writer.write(dir / "x.safetensors");
  const auto file = TensorFile::open(dir / "x.safetensors");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 4u);
  EXPECT_THAT(values(*file->find("a")), ElementsAre(1, 2, 3));
  EXPECT_EQ(file->find("m")->type, StorageType::kBF16);
  EXPECT_THAT(file->find("m")->shape, ElementsAre(2, 2));
  EXPECT_EQ(values(*file->find("m")), m);
  EXPECT_EQ(values(*file->find("h")), m);
  EXPECT_THAT(values(*file->find("scalar")), ElementsAre(7));
}

TEST(Safetensors, ReadsADirectoryWithOneFile) {
  const fakes::TempDir dir;
  one("a", {1}).write(dir / "model.safetensors");
  const auto file = TensorFile::open(dir.path());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_THAT(values(*file->find("a")), ElementsAre(1));
}

TEST(Safetensors, ReadsShards) {
  const fakes::TempDir dir;
  one("a", {1}).write(dir / "s1.safetensors");
  one("b", {2}).write(dir / "s2.safetensors");
  one("ignored", {3}).write(dir / "model.safetensors");  // the index comes first
  fakes::write_file(dir / "model.safetensors.index.json",
                    fakes::safetensors_index({{"a", "s1.safetensors"}, {"b", "s2.safetensors"}}));
  const auto file = TensorFile::open(dir.path());
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->maps().size(), 2u);
  EXPECT_THAT(values(*file->find("a")), ElementsAre(1));
  EXPECT_THAT(values(*file->find("b")), ElementsAre(2));
  EXPECT_EQ(file->find("ignored"), nullptr);
}

TEST(Safetensors, SaysWhatADirectoryLacks) {
  const fakes::TempDir dir;
  const auto file = open_safetensors(dir.path());
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, Errc::kNotFound);
  EXPECT_EQ(
      file.error().message,
      dir.path().string() + ": holds neither model.safetensors nor model.safetensors.index.json");
}

}  // namespace
}  // namespace baton::formats
