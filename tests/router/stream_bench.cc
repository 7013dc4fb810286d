// Server-sent events through the router: socket in, socket out, at the pace of workers that step
// each in its own time. The thread that is measured has a processor to itself, fake workers and
// clients have the others. The same clients then hear the same from a server that does next to
// nothing (bare_relay.h): what is beside that is the router's own.
//
//   *_events_cpu_s   events for a second of the measured thread's CPU time
//   *_p50_us, p99    from the moment when a step's frame is in the router's socket to the one when
//                    the event is in the client's: the router's overhead, with its waiting in line
//   *_read_p99_us    to the client's read of it
//   *_load           of its processor
//   *_kept_from      how much of the time others had its processor; with more than a few
//   thousandths
//                    the quantiles tell of them
//   *_clients_us     CPU time of the clients' thread for an event
#include <benchmark/benchmark.h>
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
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "router/service.h"
#include "tests/fakes/fake_worker.h"
#include "tests/fakes/temp_dir.h"
#include "tests/fakes/toy_tokenizer.h"
#include "tests/router/bare_relay.h"
#include "tests/router/cpu_use.h"
#include "tests/router/event_times.h"
#include "tests/router/http_client.h"
#include "tests/router/stream_clients.h"

namespace baton::router {
namespace {

constexpr size_t kTokens = 200;

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
std::vector<std::chrono::nanoseconds> random_phases(size_t workers, std::chrono::nanoseconds step) {
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

double quantile_us(std::vector<int64_t>& delays_ns, double q) {
  if (delays_ns.empty()) return 0;
  const auto at = delays_ns.begin() + static_cast<ptrdiff_t>(q * double(delays_ns.size() - 1));
  std::ranges::nth_element(delays_ns, at);
  return 1e-3 * static_cast<double>(*at);
}

void tell(benchmark::State& state, const std::string& whose, const StreamsSeen& seen,
          const SendTimes& times) {
  std::vector<int64_t> arrived, read;
  for (const EventSeen& event : seen.events) {
    const int64_t sent_ns = times.at(event.stream, event.index);
    arrived.push_back(event.arrived_ns - sent_ns);
    read.push_back(event.read_ns - sent_ns);
  }
  const auto events = static_cast<double>(seen.events.size());
  const auto put = [&](const char* what, double value) { state.counters[whose + what] = value; };
  put("_events_cpu_s", events / seen.server.ran);
  put("_p50_us", quantile_us(arrived, 0.5));
  put("_p99_us", quantile_us(arrived, 0.99));
  put("_read_p99_us", quantile_us(read, 0.99));
  put("_load", seen.server.ran / seen.seconds);
  put("_kept_from", seen.server.waited / seen.seconds);
  put("_clients_us", 1e6 * seen.clients.ran / events);
}

void measure(benchmark::State& state, const Processors& processors) {
  const auto streams = static_cast<size_t>(state.range(0));
  const auto workers = static_cast<size_t>(state.range(1));
  const microseconds step(state.range(2));
  const std::vector<std::chrono::nanoseconds> phases = random_phases(workers, step);
  for (auto _ : state) {
    SendTimes times(streams, kTokens), bare_times(streams, kTokens);
    StreamsSeen seen;
    {
      const Served::Options options{streams, workers, step, phases};
      Served served(options, processors, times);
      seen = run_streams(served.port(), streams, kTokens, [&] { return served.use(); });
    }
    const size_t events = seen.events.size();
    if (seen.complete < streams || events == 0) {
      return state.SkipWithError("some streams did not end, or began too late");
    }
    state.SetIterationTime(seen.server.ran);
    state.counters["events_s"] = static_cast<double>(events) / seen.seconds;
    state.counters["events_read"] = static_cast<double>(events) / static_cast<double>(seen.reads);
    BareRelay bare({streams, step, phases, seen.bytes / events}, processors, bare_times);
    const StreamsSeen roof = run_streams(bare.port(), streams, kTokens, [&] { return bare.use(); });
    tell(state, "router", seen, times);
    tell(state, "bare", roof, bare_times);
    state.counters["of_bare"] =
        state.counters["router_events_cpu_s"] / state.counters["bare_events_cpu_s"];
  }
}

// Arguments: streams, workers, a step's microseconds, whether the measured thread is apart.
void BM_StreamedTokens(benchmark::State& state) {
  spdlog::set_level(spdlog::level::warn);
  const Processors all(/*apart=*/false), processors(/*apart=*/state.range(3) == 1);
  if (state.range(3) == 1 && !processors.apart()) {
    return state.SkipWithError("there is no second processor");
  }
  processors.take_others();
  measure(state, processors);
  all.take_others();
}
BENCHMARK(BM_StreamedTokens)
    ->ArgNames({"streams", "workers", "step_us", "apart"})
    ->Args({8, 1, 2000, 1})
    ->Args({256, 4, 20000, 1})
    ->Args({2000, 64, 30000, 1})
    ->Args({2000, 16, 30000, 1})
    ->Args({2000, 8, 30000, 1})
    ->Args({2000, 64, 30000, 0})
    ->Args({2000, 8, 30000, 0})
    ->UseManualTime()
    ->Iterations(1);

}  // namespace
}  // namespace baton::router
