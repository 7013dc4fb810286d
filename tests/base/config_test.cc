#include "common/base/config.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace baton {
namespace {

struct Example {
  std::string model = "none";
  bool trusted = false;
  uint32_t threads = 2;
  double ratio = 0.5;
  std::vector<std::string> workers;

  result<Options::Outcome> parse(const std::vector<std::string>& args) {
    Options options("test", "An example");
    options.add("model", &model, "path");
    options.add("trusted-network", &trusted, "allow it");
    options.add("threads", &threads, "how many");
    options.add("ratio", &ratio, "share");
    options.add("workers", &workers, "addresses");
    options.settle([&] { threads_given = options.was_set("threads"); });
    auto outcome = options.parse(args);
    yaml = options.to_yaml();
    return outcome;
  }
  std::string yaml;
  bool threads_given = false;
};

class ConfigTest : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    const auto path = std::filesystem::temp_directory_path() /
                      ("baton_config_test_" + std::to_string(::getpid()) + ".yaml");
    std::ofstream(path) << text;
    path_ = path.string();
    return path_;
  }
  void TearDown() override {
    unsetenv("BATON_THREADS");
    unsetenv("BATON_WORKERS");
    if (!path_.empty()) std::filesystem::remove(path_);
  }
  std::string path_;
};

TEST_F(ConfigTest, DefaultsStayWithoutArguments) {
  Example e;
  ASSERT_TRUE(e.parse({}));
  EXPECT_EQ(e.threads, 2u);
  EXPECT_EQ(e.model, "none");
}

TEST_F(ConfigTest, FlagWinsOverEnvironmentOverFileOverDefault) {
  const auto file = write("threads: 5\nratio: 0.25\nmodel: from-file\nworkers: [a:1, b:2]\n");
  setenv("BATON_THREADS", "7", 1);
  Example e;
  ASSERT_TRUE(e.parse({"--config", file, "--model", "from-flag"}));
  EXPECT_EQ(e.threads, 7u);
  EXPECT_EQ(e.ratio, 0.25);
  EXPECT_EQ(e.model, "from-flag");
  EXPECT_EQ(e.workers, (std::vector<std::string>{"a:1", "b:2"}));
}

TEST_F(ConfigTest, BareBooleanFlagMeansTrue) {
  Example e;
  ASSERT_TRUE(e.parse({"--trusted-network", "--threads", "3"}));
  EXPECT_TRUE(e.trusted);
  EXPECT_EQ(e.threads, 3u);
}

TEST_F(ConfigTest, AListInOneWordIsTakenApart) {
  const std::vector<std::string> both = {"a:1", "b:2"};
  for (const char* word : {"a:1 b:2", "a:1,b:2", " a:1, b:2 ,", "a:1\n\tb:2"}) {
    setenv("BATON_WORKERS", word, 1);
    Example e;
    ASSERT_TRUE(e.parse({}));
    EXPECT_EQ(e.workers, both) << word;
  }
  Example e;
  ASSERT_TRUE(e.parse({"--workers", "a:1,b:2"}));
  EXPECT_EQ(e.workers, both);
  ASSERT_TRUE(e.parse({"--workers", "a:1", "--workers", "b:2"}));
  EXPECT_EQ(e.workers, both);
}

TEST_F(ConfigTest, TellsWhetherAnySourceGaveAKey) {
  const auto given = [](const std::vector<std::string>& args) {
    Example e;
    EXPECT_TRUE(e.parse(args));
    return e.threads_given;
  };
  EXPECT_FALSE(given({}));
  EXPECT_FALSE(given({"--model", "x"}));
  EXPECT_TRUE(given({"--threads", "2"}));  // even when it is the default
  EXPECT_TRUE(given({"--config", write("threads: 2\n")}));
  EXPECT_FALSE(given({"--config", write("ratio: 2\n")}));
  setenv("BATON_THREADS", "2", 1);
  EXPECT_TRUE(given({}));
}

TEST_F(ConfigTest, TellsWhatTheFileDidNotGive) {
  const auto given = [](const std::vector<std::string>& args) {
    std::string model = "none";
    Options options("test", "An example");
    options.add("model", &model, "path");
    EXPECT_TRUE(options.parse(args));
    return options.was_given("model");
  };
  EXPECT_FALSE(given({}));
  EXPECT_FALSE(given({"--config", write("model: x\n")}));
  EXPECT_TRUE(given({"--model", ""}));
}

TEST_F(ConfigTest, ErrorsNameTheFlagOrKey) {
  Example e;
  const auto unknown = e.parse({"--nonsense", "1"});
  ASSERT_FALSE(unknown);
  EXPECT_NE(unknown.error().message.find("nonsense"), std::string::npos);
  const auto kind = e.parse({"--threads", "many"});
  ASSERT_FALSE(kind);
  EXPECT_NE(kind.error().message.find("threads"), std::string::npos);
  const auto key = e.parse({"--config", write("thread: 5\n")});
  ASSERT_FALSE(key);
  EXPECT_NE(key.error().message.find("'thread'"), std::string::npos);
  const auto value = e.parse({"--config", write("model: x\nthreads: [1]\n")});
  ASSERT_FALSE(value);
  EXPECT_NE(value.error().message.find("'threads' (line 2)"), std::string::npos);
  const auto twice = e.parse({"--config", write("model: x\nthreads: 1\nmodel: y\n")});
  ASSERT_FALSE(twice);
  EXPECT_NE(twice.error().message.find("'model' (line 3) is there twice"), std::string::npos);
  for (const char* nothing : {"model:\n", "model: null\n", "model: ~\n"}) {
    const auto empty = e.parse({"--config", write(nothing)});
    ASSERT_FALSE(empty);
    EXPECT_NE(empty.error().message.find("'model' (line 1) has no value"), std::string::npos);
  }
  for (const std::string path : {"/nowhere.yaml", "/tmp"}) {
    const auto unreadable = e.parse({"--config", path});
    ASSERT_FALSE(unreadable);
    EXPECT_NE(unreadable.error().message.find("'" + path + "'"), std::string::npos);
  }
  EXPECT_FALSE(e.parse({"--config", write("- a\n- b\n")}));
}

TEST_F(ConfigTest, PrintedConfigurationIsTakenBack) {
  Example e;
  ASSERT_TRUE(e.parse({"--threads", "9", "--workers", "x:1", "y:2", "--model", "a b: c"}));
  Example again;
  ASSERT_TRUE(again.parse({"--config", write(e.yaml)})) << e.yaml;
  EXPECT_EQ(again.threads, 9u);
  EXPECT_EQ(again.model, "a b: c");
  EXPECT_EQ(again.workers, e.workers);
}

}  // namespace
}  // namespace baton
