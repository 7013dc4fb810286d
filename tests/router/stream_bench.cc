// Server-sent events through the router: socket in, socket out, at a worker's pace. Events a second
// are of the router thread's own CPU time, so that clients and workers on the same cores do not
// count; delays are from a worker's step to the client, and have both in them. The same clients
// then hear the same from a server that does next to nothing (bare_relay.h).
#include <benchmark/benchmark.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <fstream>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "router/service.h"
#include "tests/fakes/fake_worker.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"
#include "tests/router/bare_relay.h"
#include "tests/router/http_client.h"
#include "tests/router/stream_clients.h"

namespace baton::router {
namespace {

constexpr size_t kTokens = 150;

// An io_context that runs on a thread of its own.
class Loop {
 public:
  Loop() : work_(io.get_executor()), thread_([this] { io.run(); }) {}
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
  double cpu_seconds() { return cpu_seconds_of(thread_); }

  boost::asio::io_context io{1};

 private:
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

// A router, and workers that step each on its own.
class Served {
 public:
  Served(size_t streams, size_t workers, Duration step, SendTimes& times) {
    std::ofstream(dir_ / "tokenizer.json") << fakes::toy_tokenizer_json();
    std::ofstream(dir_ / "tokenizer_config.json") << fakes::toy_tokenizer_config_json();
    const auto draw = [&times](const proto::RequestSpec& spec, uint32_t choice, uint32_t index) {
      times.note(spec.sampling().seed(), index);
      return fakes::fake_token(spec, choice, index);
    };
    worker_loop_.run([&] {
      for (size_t i = 0; i < workers; ++i) {
        const fakes::FakeWorkerOptions options{
            .max_sequences = static_cast<uint32_t>(streams), .step = step, .draw = draw};
        workers_.push_back(std::make_unique<fakes::FakeWorker>(worker_loop_.io, options));
      }
    });
    router_loop_.run([&] {
      RouterConfig config;
      config.http.address = "127.0.0.1:0";
      config.http.max_connections = streams + 8;
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
  double cpu_seconds() { return router_loop_.cpu_seconds(); }

 private:
  fakes::TempDir dir_;
  Loop worker_loop_, router_loop_;
  std::vector<std::unique_ptr<fakes::FakeWorker>> workers_;
  std::unique_ptr<RouterService> router_;
};

double quantile_ms(std::vector<float>& seconds, double q) {
  if (seconds.empty()) return 0;
  const auto at = seconds.begin() + static_cast<ptrdiff_t>(q * double(seconds.size() - 1));
  std::nth_element(seconds.begin(), at, seconds.end());
  return 1e3 * *at;
}

void tell(benchmark::State& state, const std::string& whose, StreamsSeen& seen) {
  const auto events = static_cast<double>(seen.events);
  state.counters[whose + "_events_cpu_s"] = events / seen.cpu_seconds;
  state.counters[whose + "_us_event"] = 1e6 * seen.cpu_seconds / events;
  state.counters[whose + "_p50_ms"] = quantile_ms(seen.delays, 0.5);
  state.counters[whose + "_p99_ms"] = quantile_ms(seen.delays, 0.99);
}

// Arguments: streams, workers, a step's microseconds.
void BM_StreamedTokens(benchmark::State& state) {
  const auto streams = static_cast<size_t>(state.range(0));
  const auto workers = static_cast<size_t>(state.range(1));
  const microseconds step(state.range(2));
  spdlog::set_level(spdlog::level::warn);
  for (auto _ : state) {
    SendTimes times(streams, kTokens), bare_times(streams, kTokens);
    StreamsSeen seen;
    {
      Served served(streams, workers, step, times);
      seen = run_streams(served.port(), streams, times, [&] { return served.cpu_seconds(); });
    }
    if (seen.complete < streams) return state.SkipWithError("some streams did not end");
    state.SetIterationTime(seen.cpu_seconds);
    state.counters["events_s"] = static_cast<double>(seen.events) / seen.wall_seconds;
    state.counters["events_read"] =
        static_cast<double>(seen.events) / static_cast<double>(seen.reads);
    BareRelay bare({.streams = streams,
                    .groups = workers,
                    .step = step,
                    .event_bytes = seen.bytes / std::max<size_t>(seen.events, 1)},
                   bare_times);
    StreamsSeen roof =
        run_streams(bare.port(), streams, bare_times, [&] { return bare.cpu_seconds(); });
    tell(state, "router", seen);
    tell(state, "bare", roof);
    state.counters["of_bare"] =
        state.counters["router_events_cpu_s"] / state.counters["bare_events_cpu_s"];
  }
}
BENCHMARK(BM_StreamedTokens)
    ->ArgNames({"streams", "workers", "step_us"})
    ->Args({8, 1, 2000})
    ->Args({64, 1, 5000})
    ->Args({256, 4, 20000})
    ->Args({2000, 1, 50000})
    ->Args({2000, 8, 50000})
    ->Args({2000, 32, 50000})
    ->UseManualTime()
    ->Iterations(1);

}  // namespace
}  // namespace baton::router
