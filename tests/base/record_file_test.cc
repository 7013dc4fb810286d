#include "common/base/record_file.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

namespace baton {
namespace {

class RecordFileTest : public ::testing::Test {
 protected:
  void TearDown() override { std::filesystem::remove(path_); }
  std::string text() const {
    std::ostringstream out;
    out << std::ifstream(path_).rdbuf();
    return out.str();
  }
  const std::filesystem::path path_ =
      std::filesystem::temp_directory_path() / ("baton_record_test_" + std::to_string(::getpid()));
};

TEST_F(RecordFileTest, HasAHeaderAndALineForEach) {
  for (const char* line : {"1,2", "3,4"}) {  // the second replaces the first
    auto file = RecordFile::create(path_, "a,b");
    ASSERT_TRUE(file);
    file->add(line);
  }
  EXPECT_EQ(text(), "a,b\n3,4\n");
}

TEST_F(RecordFileTest, HasABound) {
  auto file = RecordFile::create(path_, "a", 2);
  ASSERT_TRUE(file);
  for (int i = 0; i < 5; ++i) file->add(std::to_string(i));
  EXPECT_EQ(text(), "a\n0\n1\n");  // and it is closed
}

TEST_F(RecordFileTest, NeedsAFolder) {
  const auto file = RecordFile::create(path_ / "none" / "file", "a");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, Errc::kIo);
}

TEST_F(RecordFileTest, ADiskThatIsFullIsNobodysEnd) {
  auto file = RecordFile::create("/dev/full", "a");
  if (!file) GTEST_SKIP() << "no /dev/full";
  for (int i = 0; i < 10'000; ++i) file->add("0123456789");
}

}  // namespace
}  // namespace baton
