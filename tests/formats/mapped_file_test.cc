#include "common/formats/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/fakes/gguf_writer.h"
#include "tests/fakes/temp_dir.h"

namespace baton::formats {
namespace {

using ::testing::HasSubstr;

TEST(MappedFile, ShowsTheBytes) {
  const fakes::TempDir dir;
  fakes::write_file(dir / "a", "hello");
  const auto file = MappedFile::open(dir / "a");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->text(), "hello");
  EXPECT_EQ(file->bytes().size(), 5u);
  EXPECT_EQ(file->path(), (dir / "a").string());
}

TEST(MappedFile, MovesWithoutMovingTheBytes) {
  const fakes::TempDir dir;
  fakes::write_file(dir / "a", "hello");
  auto first = MappedFile::open(dir / "a");
  ASSERT_TRUE(first);
  const std::byte* at = first->bytes().data();
  MappedFile second = std::move(*first);
  MappedFile third;
  third = std::move(second);
  EXPECT_EQ(third.bytes().data(), at);
  EXPECT_EQ(third.text(), "hello");
  EXPECT_TRUE(second.bytes().empty());
}

TEST(MappedFile, MapsAnEmptyFileToNothing) {
  const fakes::TempDir dir;
  fakes::write_file(dir / "empty", "");
  const auto file = MappedFile::open(dir / "empty");
  ASSERT_TRUE(file);
  EXPECT_TRUE(file->bytes().empty());
}

TEST(MappedFile, NamesAFileThatIsMissing) {
  const auto file = MappedFile::open("/nonexistent/model.gguf");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, Errc::kNotFound);
  EXPECT_THAT(file.error().message, HasSubstr("/nonexistent/model.gguf: cannot open the file"));
}

TEST(MappedFile, RefusesDirectoriesAndPipes) {
  const fakes::TempDir dir;
  const auto directory = MappedFile::open(dir.path());
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().code, Errc::kInvalidArgument);

  ASSERT_EQ(mkfifo((dir / "pipe").c_str(), 0600), 0);
  const auto pipe = MappedFile::open(dir / "pipe");  // must not wait for a writer
  ASSERT_FALSE(pipe);
  EXPECT_THAT(pipe.error().message, HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace baton::formats
