#include "router/service/body_reader.h"

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <future>
#include <thread>

namespace baton::router {
namespace {

class BodyReaderTest : public testing::Test {
 protected:
  using Then = BodyReader::Then;
  static std::shared_ptr<Exchange> exchange() {
    return std::make_shared<Exchange>(HttpHead{}, size_t{1} << 20);
  }
  // Holds the reader's thread until release().
  void block() {
    ASSERT_TRUE(reader_.read(blocking_, 10, [this] {
      release_.get_future().wait();
      return Then([] {});
    }));
  }
  void release() { release_.set_value(); }
  // Until all that was taken is read and told.
  void run() {
    while (reader_.waiting_bytes() > 0) io_.run_one();
  }

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      io_.get_executor()};
  std::promise<void> release_;
  std::shared_ptr<Exchange> blocking_ = exchange();
  BodyReader reader_{io_, 100};
};

TEST_F(BodyReaderTest, ReadsOnItsThreadAndAnswersOnOurs) {
  std::thread::id read, told;
  ASSERT_TRUE(reader_.read(exchange(), 1000, [&] {
    read = std::this_thread::get_id();
    return Then([&] { told = std::this_thread::get_id(); });
  }));
  run();
  EXPECT_NE(read, std::thread::id());
  EXPECT_NE(read, told);
  EXPECT_EQ(told, std::this_thread::get_id());
}

TEST_F(BodyReaderTest, SkipsClientsThatWentAway) {
  block();
  bool read = false, other_told = false;
  const auto gone = exchange();
  ASSERT_TRUE(reader_.read(gone, 10, [&] {
    read = true;
    return Then([] {});
  }));
  ASSERT_TRUE(reader_.read(exchange(), 10, [&] { return Then([&] { other_told = true; }); }));
  gone->set_gone(Exchange::Gone::kDisconnected);
  release();
  run();
  EXPECT_FALSE(read);
  EXPECT_TRUE(other_told);
}

TEST_F(BodyReaderTest, TellsNobodyWhoWentAwayMeanwhile) {
  bool told = false;
  ASSERT_TRUE(reader_.read(blocking_, 10, [&] {
    release_.get_future().wait();
    return Then([&] { told = true; });
  }));
  blocking_->set_gone(Exchange::Gone::kDisconnected);
  release();
  run();
  EXPECT_FALSE(told);
}

TEST_F(BodyReaderTest, TakesNoMoreThanItsCap) {
  block();
  const auto nothing = [] { return Then([] {}); };
  EXPECT_TRUE(reader_.read(exchange(), 200, nothing));  // a body may pass it, two may not
  EXPECT_EQ(reader_.waiting_bytes(), 210u);
  EXPECT_FALSE(reader_.read(exchange(), 1, nothing));
  release();
  run();
  EXPECT_TRUE(reader_.read(exchange(), 1, nothing));
  run();
}

TEST_F(BodyReaderTest, MayEndWithWorkWaiting) {
  bool told = false;
  {
    BodyReader reader(io_, 100);
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(reader.read(exchange(), 1, [&] { return Then([&] { told = true; }); }));
    }
  }
  io_.poll();
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace baton::router
