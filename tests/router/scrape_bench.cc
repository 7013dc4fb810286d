// What metrics cost a router: those of one token, and a scrape beside streams of many workers. A
// scrape runs on the router's one thread: what it takes, tokens wait at most.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "router/service/router_metrics.h"
#include "tests/router/http_client.h"
#include "tests/router/served.h"
#include "tests/router/stream_clients.h"

namespace baton::router {
namespace {

constexpr size_t kScrapes = 1000;
constexpr std::chrono::milliseconds kPause(5);

// As Generation does for a token of a stream.
void BM_MetricsOfAToken(benchmark::State& state) {
  Metrics metrics;
  ModelMetrics model(metrics, "toy");
  double seconds = 0.001;
  for (auto _ : state) {
    model.tokens.add_gap(seconds);
    model.tokens.add_token();
    seconds = seconds > 1 ? 0.001 : seconds * 1.01;
  }
}
BENCHMARK(BM_MetricsOfAToken);

struct Scrapes {
  std::vector<float> seconds;
  size_t bytes = 0, series = 0;
};

Scrapes scrape(uint16_t port, std::chrono::milliseconds pause) {
  Scrapes seen;
  RawClient client(port);
  for (size_t i = 0; i < kScrapes; ++i) {
    const TimePoint sent = Clock::now();
    client.send(get("/metrics"));
    const auto answer = client.read_answer(std::chrono::seconds(10));
    if (!answer || answer->status != 200) break;
    seen.seconds.push_back(static_cast<float>(to_seconds(Clock::now() - sent)));
    seen.bytes = answer->body.size();
    seen.series = static_cast<size_t>(std::ranges::count(answer->body, '\n'));
    std::this_thread::sleep_for(pause);
  }
  return seen;
}

double quantile_ms(std::vector<float>& seconds, double q) {
  if (seconds.empty()) return 0;
  const auto at = seconds.begin() + static_cast<ptrdiff_t>(q * double(seconds.size() - 1));
  std::ranges::nth_element(seconds, at);
  return 1e3 * *at;
}

// Streams, again and again until it is told to stop; how long each event took, nanoseconds.
std::vector<int64_t> stream_until(const std::atomic<bool>& enough, Served& served, size_t streams,
                                  const SendTimes& times) {
  std::vector<int64_t> delays;
  do {
    const StreamsSeen seen =
        run_streams(served.port(), streams, kStreamTokens, streams, [&] { return served.use(); });
    for (const EventSeen& event : seen.watched) {
      delays.push_back(event.arrived_ns - times.at(event.stream, event.index));
    }
  } while (!enough);
  return delays;
}

// Arguments: streams, workers, a step's microseconds.
void BM_Scrapes(benchmark::State& state) {
  const auto streams = static_cast<size_t>(state.range(0));
  const auto workers = static_cast<size_t>(state.range(1));
  spdlog::set_level(spdlog::level::warn);
  for (auto _ : state) {
    SendTimes times(streams, kStreamTokens);
    const microseconds step(state.range(2));
    Served served({streams, workers, step, random_phases(workers, step)},
                  Processors(/*apart=*/false), times);
    const double before = served.use().ran;
    Scrapes idle = scrape(served.port(), {});
    const double cpu = served.use().ran - before;
    std::vector<int64_t> unscraped = stream_until(std::atomic<bool>(true), served, streams, times);
    std::atomic<bool> enough = false;
    std::vector<int64_t> scraped;
    std::thread load([&] { scraped = stream_until(enough, served, streams, times); });
    Scrapes busy = scrape(served.port(), kPause);
    enough = true;
    load.join();
    if (busy.seconds.size() < kScrapes) return state.SkipWithError("a scrape failed");
    state.SetIterationTime(cpu);
    state.counters["bytes"] = static_cast<double>(busy.bytes);
    state.counters["lines"] = static_cast<double>(busy.series);
    state.counters["cpu_ms_scrape"] = 1e3 * cpu / double(kScrapes);
    state.counters["idle_p50_ms"] = quantile_ms(idle.seconds, 0.5);
    state.counters["idle_p99_ms"] = quantile_ms(idle.seconds, 0.99);
    state.counters["p50_ms"] = quantile_ms(busy.seconds, 0.5);
    state.counters["p99_ms"] = quantile_ms(busy.seconds, 0.99);
    state.counters["token_p99_ms"] = 1e-3 * quantile_us(unscraped, 0.99);
    state.counters["token_p99_ms_scraped"] = 1e-3 * quantile_us(scraped, 0.99);
  }
}
BENCHMARK(BM_Scrapes)
    ->ArgNames({"streams", "workers", "step_us"})
    ->Args({200, 1, 50000})
    ->Args({200, 100, 50000})
    ->UseManualTime()
    ->Iterations(1);

}  // namespace
}  // namespace baton::router
