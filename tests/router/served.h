#pragma once

#include <unistd.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <fstream>
#include <future>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "router/service.h"
#include "tests/fakes/fake_worker.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"
#include "tests/router/cpu_use.h"
#include "tests/router/event_times.h"
#include "tests/router/http_client.h"

namespace baton::router {

inline constexpr size_t kStreamTokens = 200;

// An io_context that runs on a thread of its own.
class Loop {
 public:
  Loop() : work_(io.get_executor()), thread_([this] { io.run(); }) {
    run([this] { tid_ = ::gettid(); });
  }
  ~Loop() {
    work_.reset();
    io.stop();
    thread_.join();
  }
  template <class F>
  void run(F&& f) {
    std::promise<void> done;
    boost::asio::post(io, [&] {
      f();
      done.set_value();
    });
    done.get_future().wait();
  }
  CpuUse use() const { return cpu_use_of(tid_); }

  boost::asio::io_context io{1};

 private:
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  pid_t tid_ = 0;
  std::thread thread_;
};

// When each of the workers steps first, within a step's time: as chance has it, in every run alike.
inline std::vector<std::chrono::nanoseconds> random_phases(size_t workers,
                                                           std::chrono::nanoseconds step) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<int64_t> within(0, step.count() - 1);
  std::vector<std::chrono::nanoseconds> phases(workers);
  for (std::chrono::nanoseconds& phase : phases) phase = std::chrono::nanoseconds(within(random));
  return phases;
}

// A router, and workers that step each on its own.
class Served {
 public:
  struct Options {
    size_t streams = 0, workers = 1;
    Duration step{};
    std::vector<std::chrono::nanoseconds> phases;  // of each worker
  };
  Served(const Options& options, const Processors& processors, SendTimes& times) {
    std::ofstream(dir_ / "tokenizer.json") << fakes::toy_tokenizer_json();
    std::ofstream(dir_ / "tokenizer_config.json") << fakes::toy_tokenizer_config_json();
    router_loop_.run([&] { processors.take_measured(); });
    worker_loop_.run([&] {
      for (size_t i = 0; i < options.workers; ++i) add_worker(options, options.phases[i], times);
    });
    router_loop_.run([&] {
      RouterConfig config;
      config.http.address = "127.0.0.1:0";
      config.http.max_connections = options.streams + 8;
      config.models = {{"toy", dir_.path()}};
      for (const auto& worker : workers_) config.workers.push_back(worker->address());
      router_ = std::move(*RouterService::start(router_loop_.io, std::move(config)));
    });
    while (request(port(), get("/ready")).status != 200) std::this_thread::yield();
  }
  ~Served() {
    router_loop_.run([&] { router_.reset(); });
    worker_loop_.run([&] { workers_.clear(); });
  }
  uint16_t port() const { return router_->http_port(); }
  CpuUse use() const { return router_loop_.use(); }

 private:
  // What a step draws is noted once it is in the router's socket.
  void add_worker(const Options& options, std::chrono::nanoseconds phase, SendTimes& times) {
    auto drawn = std::make_shared<std::vector<std::pair<size_t, size_t>>>();
    fakes::FakeWorkerOptions worker{.max_sequences = static_cast<uint32_t>(options.streams),
                                    .step = options.step,
                                    .phase = phase};
    worker.draw = [drawn](const proto::RequestSpec& spec, uint32_t choice, uint32_t index) {
      drawn->emplace_back(spec.sampling().seed(), index);
      return fakes::fake_token(spec, choice, index);
    };
    worker.ready = [this, streams = options.streams] {
      size_t submits = 0;
      for (const auto& one : workers_) submits += one->submits();
      return submits >= streams;
    };
    worker.on_stepped = [drawn, &times] {
      const int64_t now = wall_ns();
      for (const auto& [stream, index] : *drawn) times.note(stream, index, now);
      drawn->clear();
    };
    workers_.push_back(std::make_unique<fakes::FakeWorker>(worker_loop_.io, std::move(worker)));
  }

  fakes::TempDir dir_;
  Loop worker_loop_, router_loop_;
  std::vector<std::unique_ptr<fakes::FakeWorker>> workers_;
  std::unique_ptr<RouterService> router_;
};

inline double quantile_us(std::vector<int64_t>& delays_ns, double q) {
  if (delays_ns.empty()) return 0;
  const auto at = delays_ns.begin() + static_cast<ptrdiff_t>(q * double(delays_ns.size() - 1));
  std::ranges::nth_element(delays_ns, at);
  return 1e-3 * static_cast<double>(*at);
}

}  // namespace baton::router
