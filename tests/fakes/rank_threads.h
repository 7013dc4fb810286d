#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/collective/collective.h"

namespace baton::fakes {

// Ranks as threads of one process: what they have to say to each other before they are connected.
class ExchangeHub {
 public:
  explicit ExchangeHub(uint32_t size) : said_(size) {}

  collective::Exchange of(uint32_t rank) {
    return [this, rank](const std::string& mine) -> result<std::vector<std::string>> {
      std::unique_lock lock(mutex_);
      std::vector<std::string>& rounds = said_[rank];
      rounds.push_back(mine);
      const size_t round = rounds.size();
      changed_.notify_all();
      const auto all_came = [&] {
        return std::ranges::all_of(said_, [&](const auto& r) { return r.size() >= round; });
      };
      if (!changed_.wait_for(lock, seconds(20), all_came)) {
        return error(Errc::kDeadlineExceeded, "not all ranks came");
      }
      std::vector<std::string> all;
      for (const auto& r : said_) all.push_back(r[round - 1]);
      return all;
    };
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::vector<std::string>> said_;  // [rank][round]
};

using Connect = std::function<result<std::unique_ptr<collective::Collective>>(
    uint32_t rank, uint32_t size, const collective::Exchange&, milliseconds timeout)>;

// Runs `body` once for each rank, each in a thread of its own with its collective.
inline void run_ranks(uint32_t size,
                      const std::function<void(std::unique_ptr<collective::Collective>)>& body,
                      milliseconds timeout = milliseconds(20000),
                      const Connect& connect = collective::connect_gloo) {
  ExchangeHub hub(size);
  std::vector<std::thread> threads;
  for (uint32_t rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      auto connected = connect(rank, size, hub.of(rank), timeout);
      ASSERT_TRUE(connected) << connected.error().message;
      body(std::move(*connected));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace baton::fakes
