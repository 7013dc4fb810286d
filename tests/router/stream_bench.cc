// Server-sent events through the router: socket in, socket out. The figure is events a second of
// the router thread's own CPU time, so that clients and workers on the same cores do not count.
#include <benchmark/benchmark.h>
#include <pthread.h>
#include <time.h>

#include <atomic>
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
#include "tests/router/http_client.h"

namespace baton::router {
namespace {

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
  double cpu_seconds() {
    clockid_t clock;
    pthread_getcpuclockid(thread_.native_handle(), &clock);
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  }

  boost::asio::io_context io{1};

 private:
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_;
  std::thread thread_;
};

// Reads a stream to its end; the number of its events.
size_t drain_stream(uint16_t port, const std::string& request_bytes) {
  RawClient client(port);
  client.send(request_bytes);
  const auto answer = client.read_answer(std::chrono::seconds(60));
  return answer && answer->complete ? events_of(answer->body).size() : 0;
}

void BM_StreamedTokens(benchmark::State& state) {
  const auto streams = static_cast<size_t>(state.range(0));
  constexpr int kTokens = 400;
  fakes::TempDir dir;
  std::ofstream(dir / "tokenizer.json") << fakes::toy_tokenizer_json();
  std::ofstream(dir / "tokenizer_config.json") << fakes::toy_tokenizer_config_json();
  spdlog::set_level(spdlog::level::warn);
  Loop worker_loop, router_loop;
  std::unique_ptr<fakes::FakeWorker> worker;
  worker_loop.run([&] {
    worker = std::make_unique<fakes::FakeWorker>(
        worker_loop.io, fakes::FakeWorkerOptions{.max_sequences = 1024, .step = microseconds(500)});
  });
  std::unique_ptr<RouterService> router;
  router_loop.run([&] {
    RouterConfig config;
    config.http.address = "127.0.0.1:0";
    config.models = {{"toy", dir.path()}};
    config.workers = {worker->address()};
    router = std::move(*RouterService::start(router_loop.io, std::move(config)));
  });
  const uint16_t port = router->http_port();
  while (request(port, get("/ready")).status != 200) std::this_thread::yield();

  const std::string bytes =
      post("/v1/chat/completions", R"({"model":"toy","stream":true,"max_tokens":)" +
                                       std::to_string(kTokens) +
                                       R"(,"messages":[{"role":"user","content":"Hi"}]})");
  size_t events = 0;
  double cpu = 0;
  for (auto _ : state) {
    const double before = router_loop.cpu_seconds();
    std::atomic<size_t> got = 0;
    std::vector<std::thread> clients;
    for (size_t i = 0; i < streams; ++i) {
      clients.emplace_back([&] { got += drain_stream(port, bytes); });
    }
    for (std::thread& client : clients) client.join();
    const double spent = router_loop.cpu_seconds() - before;
    events += got;
    cpu += spent;
    state.SetIterationTime(spent);
  }
  state.counters["events_per_cpu_s"] = static_cast<double>(events) / cpu;
  router_loop.run([&] { router.reset(); });
  worker_loop.run([&] { worker.reset(); });
}
BENCHMARK(BM_StreamedTokens)->Arg(8)->Arg(64)->Arg(256)->UseManualTime()->Iterations(3);

}  // namespace
}  // namespace baton::router
