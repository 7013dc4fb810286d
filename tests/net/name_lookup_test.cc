#include "common/net/name_lookup.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <optional>
#include <thread>

namespace baton::net {
namespace {

using boost::asio::ip::make_address;

// A name server that answers when it is told to, with how often it was asked before. Its threads
// may outlive a test, and share what they use.
class FakeNames {
 public:
  NameLookup lookup() const {
    return [state = state_](const std::string& host, const std::string& port) {
      const auto before = static_cast<uint16_t>(state->asked++);
      EXPECT_EQ(host + ":" + port, "pool.example:9000");
      state->may_answer.wait();
      FoundName found;
      found.endpoints.emplace_back(make_address("10.0.0.1"), before);
      return found;
    };
  }
  void answer() { state_->answer.set_value(); }
  int asked() const { return state_->asked; }
  bool wait_asked() const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (asked() == 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return asked() > 0;
  }

 private:
  struct State {
    std::promise<void> answer;
    std::shared_future<void> may_answer = answer.get_future().share();
    std::atomic<int> asked{0};
  };
  const std::shared_ptr<State> state_ = std::make_shared<State>();
};

class NameQueryTest : public testing::Test {
 protected:
  std::optional<boost::asio::io_context> io_{std::in_place};
  FakeNames names_;
  std::optional<NameQuery> query_{std::in_place, io_->get_executor(), names_.lookup(),
                                  "pool.example", "9000"};
};

TEST_F(NameQueryTest, TheLoopGoesOnUntilTheAnswerIsThere) {
  int told = 0;
  query_->ask([&](const FoundName& found) {
    ++told;
    EXPECT_FALSE(found.failed);
    EXPECT_EQ(found.endpoints.at(0).address(), make_address("10.0.0.1"));
  });
  EXPECT_EQ(io_->poll(), 0u);
  EXPECT_FALSE(io_->stopped());
  names_.answer();
  io_->run_for(std::chrono::seconds(20));
  EXPECT_EQ(told, 1);
}

TEST_F(NameQueryTest, NobodyWaitsForANameServerAtTheEnd) {
  query_->ask([](const FoundName&) { ADD_FAILURE() << "it is gone"; });
  ASSERT_TRUE(names_.wait_asked());
  auto end = std::async(std::launch::async, [&] {
    query_.reset();
    io_.reset();
  });
  EXPECT_EQ(end.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  names_.answer();
}

TEST_F(NameQueryTest, WhoAsksAgainWaitsForTheSameLook) {
  std::vector<int> told;
  for (int i = 0; i < 5; ++i) {
    query_->ask([&told, i](const FoundName&) { told.push_back(i); });
    if (i % 2 == 0) query_->forget();
  }
  query_->ask([&](const FoundName& found) {
    told.push_back(9);
    EXPECT_EQ(found.endpoints.at(0).port(), 0) << "the first look's";
  });
  ASSERT_TRUE(names_.wait_asked());
  names_.answer();
  io_->run_for(std::chrono::seconds(20));
  EXPECT_EQ(told, std::vector<int>{9});
  EXPECT_EQ(names_.asked(), 1);
  io_->restart();
  query_->ask([&](const FoundName& found) { EXPECT_EQ(found.endpoints.at(0).port(), 1); });
  io_->run_for(std::chrono::seconds(20));
  EXPECT_EQ(names_.asked(), 2);
}

TEST_F(NameQueryTest, WhoIsForgottenHearsNothing) {
  query_->ask([](const FoundName&) { ADD_FAILURE() << "it was forgotten"; });
  ASSERT_TRUE(names_.wait_asked());
  query_->forget();
  names_.answer();
  io_->run_for(std::chrono::seconds(20));
  EXPECT_TRUE(io_->stopped()) << "and nothing keeps the loop";
}

TEST_F(NameQueryTest, WhoIsAnsweredMayEndIt) {
  bool told = false;
  query_->ask([&](const FoundName&) {
    query_.reset();
    told = true;
  });
  names_.answer();
  io_->run_for(std::chrono::seconds(20));
  EXPECT_TRUE(told);
}

}  // namespace
}  // namespace baton::net
