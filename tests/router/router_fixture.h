#pragma once

#include <gtest/gtest.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "router/service.h"
#include "tests/fakes/fake_worker.h"
#include "tests/fakes/temp_dir.h"
#include "tests/router/http_client.h"

namespace baton::router {

// A router with fake workers behind real sockets, on a thread of its own.
class RouterFixture : public testing::Test {
 protected:
  RouterFixture();
  ~RouterFixture() override;

  // Workers come before the router that is to know them.
  fakes::FakeWorker& add_worker(fakes::FakeWorkerOptions options);
  void add_pair(Duration step = milliseconds(1));
  // The configuration is completed with the model and the workers' addresses.
  void start(RouterConfig config = {});
  void wait_ready(size_t workers = 1);
  void stop();

  uint16_t port() const { return port_; }
  HttpAnswer ask(const std::string& bytes) const { return request(port_, bytes); }
  // On the io thread.
  template <class F>
  auto on_io(F&& f) {
    std::packaged_task<decltype(f())()> task(std::forward<F>(f));
    auto done = task.get_future();
    boost::asio::post(io_, [&] { task(); });
    return done.get();
  }
  bool eventually(const std::function<bool()>& condition,
                  std::chrono::milliseconds within = std::chrono::seconds(5));
  size_t active_on_workers();

  boost::asio::io_context io_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
  fakes::TempDir dir_;
  fakes::FakeNetwork network_;
  std::vector<std::unique_ptr<fakes::FakeWorker>> workers_;
  std::unique_ptr<RouterService> router_;
  uint16_t port_ = 0;
};

// The text that a fake worker's tokens make.
std::string fake_text(const std::vector<TokenId>& prompt, uint32_t choice, uint32_t tokens,
                      uint64_t seed);

inline boost::json::value parse(std::string_view text) {
  return boost::json::parse(boost::json::string_view(text.data(), text.size()));
}

}  // namespace baton::router
