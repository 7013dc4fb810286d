// Server-sent events through the router: socket in, socket out, at the pace of workers that step
// each in its own time. The thread that is measured has a processor to itself; fake workers,
// clients and what the kernel does to receive have the others (own_network.h). The same clients
// then hear the same from a server that does next to nothing (bare_relay.h): what is beside that is
// the router's own.
//
//   *_events_cpu_s   events for a second of the measured thread's CPU time
//   *_p50_us, p99    from the moment when a step's frame is in the router's socket to the one when
//                    the event is in the client's: the router's overhead, with its waiting in line
//   *_read_p99_us    to the client's read of it
//   *_load           of its processor
//   *_kept_from      how much of the time others had its processor; with more than a
//                    few thousandths the quantiles tell of them
//   *_clients_us     CPU time of the clients' thread for an event
//
// Delays are those of `kWatched` streams, all else of all of them.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "common/base/log.h"
#include "tests/router/bare_relay.h"
#include "tests/router/own_network.h"
#include "tests/router/served.h"
#include "tests/router/stream_clients.h"

namespace baton::router {
namespace {

constexpr size_t kWatched = 250;

void tell(benchmark::State& state, const std::string& whose, const StreamsSeen& seen,
          const SendTimes& times) {
  std::vector<int64_t> arrived, read;
  for (const EventSeen& event : seen.watched) {
    const int64_t sent_ns = times.at(event.stream, event.index);
    arrived.push_back(event.arrived_ns - sent_ns);
    read.push_back(event.read_ns - sent_ns);
  }
  const auto events = static_cast<double>(seen.events);
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
  const size_t watch = std::min(streams, kWatched);
  const microseconds step(state.range(2));
  const std::vector<std::chrono::nanoseconds> phases = random_phases(workers, step);
  for (auto _ : state) {
    SendTimes times(streams, kStreamTokens), bare_times(streams, kStreamTokens);
    StreamsSeen seen;
    {
      const Served::Options options{streams, workers, step, phases};
      Served served(options, processors, times);
      seen =
          run_streams(served.port(), streams, kStreamTokens, watch, [&] { return served.use(); });
    }
    if (seen.complete < streams || seen.events == 0) {
      return state.SkipWithError("some streams did not end, or began too late");
    }
    state.SetIterationTime(seen.server.ran);
    state.counters["events_s"] = static_cast<double>(seen.events) / seen.seconds;
    state.counters["events_read"] =
        static_cast<double>(seen.watched.size()) / static_cast<double>(seen.reads);
    BareRelay bare({streams, step, phases, seen.bytes / seen.events}, processors, bare_times);
    const StreamsSeen roof =
        run_streams(bare.port(), streams, kStreamTokens, watch, [&] { return bare.use(); });
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
  static const std::string network = take_own_network(Processors(/*apart=*/true));
  state.SetLabel("network: " + network);
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
