#include "cli/api_keys.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace baton::cli {
namespace {

class ApiKeys : public ::testing::Test {
 protected:
  result<std::vector<std::string>> read(const std::string& text, mode_t mode = 0600) {
    std::ofstream(path_) << text;
    ::chmod(path_.c_str(), mode);
    return read_api_keys(path_);
  }
  void TearDown() override { std::filesystem::remove(path_); }
  const std::string path_ = (std::filesystem::temp_directory_path() /
                             ("baton_api_keys_test_" + std::to_string(::getpid())))
                                .string();
};

TEST_F(ApiKeys, SkipsBlankLinesAndComments) {
  const auto keys = read("\n# of the team\n\r\nfirst\r\n  \nsecond");
  ASSERT_TRUE(keys);
  EXPECT_EQ(*keys, (std::vector<std::string>{"first", "second"}));
}

TEST_F(ApiKeys, AFileWithoutAKeyIsAnError) {
  EXPECT_FALSE(read("# none yet\n"));
  EXPECT_FALSE(read(""));
}

TEST_F(ApiKeys, AFileThatEverybodyMayReadIsAnError) {
  for (const mode_t mode : {0644, 0602}) {
    const auto open = read("key\n", mode);
    ASSERT_FALSE(open);
    EXPECT_EQ(open.error().message,
              "the keys in '" + path_ + "': everybody may read it; chmod 600");
  }
  EXPECT_TRUE(read("key\n", 0440));
}

TEST_F(ApiKeys, AMissingFileIsAnErrorAndNoPathNone) {
  const auto missing = read_api_keys("/nowhere/keys");
  ASSERT_FALSE(missing);
  EXPECT_NE(missing.error().message.find("/nowhere/keys"), std::string::npos);
  ASSERT_TRUE(read_api_keys(""));
  EXPECT_TRUE(read_api_keys("")->empty());
}

}  // namespace
}  // namespace baton::cli
