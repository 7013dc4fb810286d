#include "common/base/line_log.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <sstream>
#include <thread>
#include <vector>

namespace baton {
namespace {

namespace fs = std::filesystem;

class LineLogTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }
  static std::string text(const fs::path& path) {
    std::ostringstream out;
    out << std::ifstream(path).rdbuf();
    return out.str();
  }
  bool eventually_has(const fs::path& path, const std::string& what) const {
    for (int i = 0; i < 1000 && text(path) != what; ++i) {
      std::this_thread::sleep_for(milliseconds(5));
    }
    return text(path) == what;
  }
  std::unique_ptr<LineLog> open(size_t most = LineLog::kMaxWaitingBytes) {
    auto log = LineLog::open(path_.string(), most);
    EXPECT_TRUE(log);
    return std::move(*log);
  }
  const fs::path folder_ =
      fs::temp_directory_path() / ("baton_line_log_test_" + std::to_string(::getpid()));
  const fs::path path_ = folder_ / "log";
};

TEST_F(LineLogTest, AppendsInOrderAndItsEndWritesTheRest) {
  std::ofstream(path_) << "before\n";
  std::string expected = "before\n";
  {
    const auto log = open();
    for (int i = 0; i < 1000; ++i) {
      log->add(std::to_string(i));
      expected += std::to_string(i) + "\n";
    }
  }
  EXPECT_EQ(text(path_), expected);
}

TEST_F(LineLogTest, AfterARenameItGoesOnInTheOldFileUntilItIsOpenedAnew) {
  const auto log = open();
  log->add("a");
  ASSERT_TRUE(eventually_has(path_, "a\n"));
  fs::rename(path_, folder_ / "log.1");
  log->add("b");
  ASSERT_TRUE(eventually_has(folder_ / "log.1", "a\nb\n"));
  log->reopen();
  log->add("c");
  EXPECT_TRUE(eventually_has(path_, "c\n"));
  EXPECT_EQ(text(folder_ / "log.1"), "a\nb\n");
}

TEST_F(LineLogTest, AFileThatIsCutShortIsContinuedAtItsNewEnd) {
  const auto log = open();
  log->add("a");
  ASSERT_TRUE(eventually_has(path_, "a\n"));
  fs::resize_file(path_, 0);  // as logrotate's copytruncate does
  log->add("b");
  EXPECT_TRUE(eventually_has(path_, "b\n"));
}

TEST_F(LineLogTest, WhatCannotBeOpenedAnewGoesOnWhereItWas) {
  const auto log = open();
  log->add("a");
  ASSERT_TRUE(eventually_has(path_, "a\n"));
  fs::rename(path_, folder_ / "log.1");
  fs::create_directory(path_);
  log->reopen();
  log->add("b");
  EXPECT_TRUE(eventually_has(folder_ / "log.1", "a\nb\n"));
  EXPECT_EQ(log->dropped(), 0u);
}

TEST_F(LineLogTest, AFolderThatIsNotThereIsAnError) {
  const auto log = LineLog::open((folder_ / "none" / "log").string());
  ASSERT_FALSE(log);
  EXPECT_EQ(log.error().code, Errc::kIo);
}

TEST_F(LineLogTest, ADiskThatIsFullLosesLinesAndIsNobodysEnd) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  auto log = LineLog::open("/dev/full");
  ASSERT_TRUE(log);
  for (int i = 0; i < 10; ++i) (*log)->add("line");
  for (int i = 0; i < 1000 && (*log)->dropped() < 10; ++i) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ((*log)->dropped(), 10u);
}

// Nobody reads the pipe: whoever adds does not wait, what waits is bounded, and it can end.
TEST_F(LineLogTest, AReaderThatStandsStillHoldsNobodyUp) {
  ASSERT_EQ(::mkfifo(path_.c_str(), 0600), 0);
  const int reader = ::open(path_.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ASSERT_GE(reader, 0);
  ASSERT_GE(::fcntl(reader, F_SETPIPE_SZ, 4096), 0);
  constexpr uint64_t kLines = 1000;
  const std::string line(1000, 'x');
  auto log = open(10'000);
  for (uint64_t i = 0; i < kLines; ++i) log->add(line);
  EXPECT_GT(log->dropped(), 0u);
  EXPECT_LT(log->dropped(), kLines);
  const TimePoint begun = Clock::now();
  log.reset();
  EXPECT_LT(Clock::now() - begun, LineLog::kLastWords + seconds(5));
  ::close(reader);
}

// As on a network's disk that is away: the write cannot be told to end.
TEST_F(LineLogTest, AFileSystemThatHangsHoldsNobodyUp) {
  struct Disk {
    std::promise<void> back;
    std::shared_future<void> is_back = back.get_future().share();
    std::atomic<int> writes{0}, ended{0};
  };
  const auto disk = std::make_shared<Disk>();
  auto log = LineLog::open(path_.string(), 100, [disk](int fd, const void* bytes, size_t count) {
    ++disk->writes;
    disk->is_back.wait();
    const ssize_t written = ::write(fd, bytes, count);
    ++disk->ended;
    return written;
  });
  ASSERT_TRUE(log);
  (*log)->add("first");
  while (disk->writes == 0) std::this_thread::sleep_for(milliseconds(1));
  for (int i = 0; i < 100; ++i) (*log)->add("more");
  EXPECT_EQ((*log)->dropped(), 80u);
  (*log)->reopen();
  auto end = std::async(std::launch::async, [&] { log->reset(); });
  EXPECT_EQ(end.wait_for(LineLog::kLastWords + seconds(5)), std::future_status::ready);
  disk->back.set_value();
  for (int i = 0; i < 1000 && disk->ended < 2; ++i) std::this_thread::sleep_for(milliseconds(5));
  EXPECT_EQ(disk->ended, 2) << "its thread ends by itself";
}

}  // namespace
}  // namespace baton
