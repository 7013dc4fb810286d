// Baton's hand-off against a raw UCX loop that reads the same segments, in one run, between two
// processes. Rounds of all are interleaved; medians and spread are printed.
//   transfer_bench shm|tcp [LAYERS KV_HEADS HEAD_DIM TOKENS ROUNDS RUN_BLOCKS]
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <sstream>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/range_digest.h"
#include "kvtransfer/raw_ucx.h"
#include "tests/kvtransfer/kv_pattern.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

namespace baton::kvtransfer {
namespace {

constexpr WorkerId kSource{9}, kChecking{1}, kBelieving{2};
constexpr uint64_t kSeed = 42, kHash = 7;

struct BenchConfig {
  std::string tls = "shm";
  uint32_t layers = 30, kv_heads = 3, head_dim = 64;  // SmolLM2-135M
  uint32_t tokens = 2048, rounds = 5;
  uint32_t run_blocks = 1;  // that lie side by side on both sides

  kvcache::KvLayout layout() const {
    return kvcache::KvLayout::full_kv(layers, kv_heads, head_dim, DType::kBF16, 16);
  }
  uint32_t blocks() const { return layout().blocks_for(tokens); }
  uint64_t bytes() const { return uint64_t{blocks()} * layout().block_bytes(); }
  RealWorkerOptions worker(WorkerId id, bool verify) const {
    return {.id = id.value,
            .tls = tls,
            .layout = layout(),
            .num_blocks = blocks(),
            .verify_digests = verify,
            .read_bytes = HandoffConfig{}.read_bytes};
  }
  // Both sides scatter the sequence over their cache, differently, in runs.
  std::vector<BlockId> scattered(uint32_t seed) const {
    std::vector<uint32_t> begins;
    for (uint32_t b = 0; b < blocks(); b += run_blocks) begins.push_back(b);
    std::shuffle(begins.begin(), begins.end(), std::mt19937(seed));
    std::vector<BlockId> ids;
    for (const uint32_t begin : begins) {
      for (uint32_t b = begin; b < std::min(begin + run_blocks, blocks()); ++b) ids.emplace_back(b);
    }
    return ids;
  }
};

// Lines over a socket pair.
class Line {
 public:
  explicit Line(int fd) : fd_(fd) {}
  int fd() const { return fd_; }
  void say(const std::string& text) const {
    const std::string line = text + "\n";
    if (::write(fd_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) std::abort();
  }
  std::string hear() const {
    std::string line;
    for (char c = 0; ::read(fd_, &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

 private:
  int fd_;
};

template <class T>
T need(result<T> r) {
  if (r) return std::move(*r);
  std::fprintf(stderr, "%s\n", r.error().message.c_str());
  std::abort();
}
void need(const status& s) {
  if (s) return;
  std::fprintf(stderr, "%s\n", s.error().message.c_str());
  std::abort();
}

// The prefill side: its KV and digests are there already, as they would be after computing.
class BenchSource {
 public:
  BenchSource(const BenchConfig& config, Line line)
      : config_(config),
        line_(line),
        raw_(need(RawUcx::create(config.tls, config.bytes()))),
        worker_(config.worker(kSource, true)),
        ids_(config.scattered(1)) {
    const kvcache::KvLayout layout = config_.layout();
    std::byte* cache = worker_.driver().cache().data();
    write_kv(layout, cache, {ids_, 0}, {0, config_.layers, 0, config_.tokens}, kSeed);
    for (uint32_t layer = 0; layer < config_.layers; ++layer) {
      for (uint32_t b = 0; b < config_.blocks(); ++b) {
        digests_.push_back(
            digest_range(layout, cache, {ids_, 0}, {layer, layer + 1, b * 16, (b + 1) * 16}));
      }
    }
  }

  void run() {
    line_.say(to_hex(raw_->address()));
    line_.say(to_hex(encode(worker_.driver().hello())));
    for (int i = 0; i < 2; ++i) {
      need(worker_.driver().add_peer(need(decode_hello(from_hex(line_.hear()))), Clock::now()));
    }
    bool quit = false;
    const auto obey = [&] {
      std::istringstream words(line_.hear());
      std::string what;
      uint64_t request = 0, sink = 0;
      words >> what >> request >> sink;
      if (what == "raw") {
        raw_->serve(line_.fd());
        line_.hear();
      } else if (what == "layers" || what == "parked") {
        hand_over(test_key(request), WorkerId{sink}, what == "layers" ? 1 : config_.layers);
      } else {
        quit = true;
      }
    };
    while (!quit) worker_.run_until([&] { return quit; }, seconds(5), line_.fd(), obey);
  }

 private:
  void hand_over(const HandoffKey& key, WorkerId sink, uint32_t layers_at_once) {
    const TimePoint now = Clock::now();
    need(worker_.driver().begin({key, sink, config_.tokens, kHash, now + seconds(30)}, now));
    for (uint32_t layer = 0; layer < config_.layers; layer += layers_at_once) {
      const LayersDone done{layer, layer + layers_at_once, 0, ids_,
                            std::span(digests_).subspan(size_t{layer} * config_.blocks(),
                                                        size_t{layers_at_once} * config_.blocks())};
      need(worker_.driver().layers_done(key, done, now));
      (void)worker_.driver().poll(Clock::now());  // computing takes longer than an announce
    }
    const TokenId first = 1;
    need(worker_.driver().finished(key, {&first, 1}, now));
  }

  const BenchConfig config_;
  const Line line_;
  std::unique_ptr<RawUcx> raw_;
  RealWorker worker_;
  const std::vector<BlockId> ids_;
  std::vector<uint64_t> digests_;  // [layer][block]
};

double median(std::vector<double> v) {
  std::ranges::sort(v);
  return v[v.size() / 2];
}

double cpu_seconds() {
  ::timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

// One way to bring the bytes over, measured round by round.
struct Series {
  const char* name;
  std::vector<double> gbs;            // by the clock
  std::vector<double> cpu_ms_per_gb;  // of the reading process

  void print(double raw_gbs) const {
    const auto [lo, hi] = std::ranges::minmax(gbs);
    std::printf("  %-28s %6.2f GB/s (%.2f to %.2f) %6.1f %% of raw, reader's CPU %.0f ms/GB\n",
                name, median(gbs), lo, hi, 100 * median(gbs) / raw_gbs, median(cpu_ms_per_gb));
  }
};

// The decode side, which measures.
class BenchSink {
 public:
  BenchSink(const BenchConfig& config, Line line)
      : config_(config),
        line_(line),
        raw_(need(RawUcx::create(config.tls, config.bytes()))),
        checking_(config.worker(kChecking, true)),
        believing_(config.worker(kBelieving, false)),
        ids_(config.scattered(2)) {}

  void run() {
    need(raw_->connect(from_hex(line_.hear())));
    const Hello source = need(decode_hello(from_hex(line_.hear())));
    for (RealWorker* worker : {&checking_, &believing_}) {
      need(worker->driver().add_peer(source, Clock::now()));
      line_.say(to_hex(encode(worker->driver().hello())));
    }
    for (RealWorker* worker : {&checking_, &believing_}) {
      worker->run_until([&] { return !worker->up_.empty(); }, seconds(5));
    }
    std::printf("%s: %u tokens, %u layers of %zu KiB a block, %.1f MB, %lu runs, %u rounds\n",
                checking_.transport_.c_str(), config_.tokens, config_.layers,
                config_.layout().layer_bytes() >> 10, static_cast<double>(config_.bytes()) / 1e6,
                runs(), config_.rounds);
    measure("layers", "a layer of a block at a time", 1);
    measure("parked", "whole blocks", config_.layers);
    line_.say("quit");
  }

 private:
  std::vector<GetOp> segments(uint32_t layers_at_once) {
    const std::vector<BlockId> source_ids = config_.scattered(1);
    const kvcache::KvLayout layout = config_.layout();
    std::vector<Segment> plan;
    for (uint32_t layer = 0; layer < config_.layers; layer += layers_at_once) {
      plan_transfer(layout, {source_ids, 0}, layout, {ids_, 0},
                    {layer, layer + layers_at_once, 0, config_.tokens}, plan);
    }
    std::vector<GetOp> ops;
    for (const Segment& s : plan) {
      ops.push_back({s.source_offset, raw_->memory().data() + s.sink_offset, s.bytes, s.count,
                     s.source_stride, s.sink_stride});
    }
    return ops;
  }

  // Blocks that follow each other on both sides.
  uint64_t runs() const {
    const std::vector<BlockId> source_ids = config_.scattered(1);
    uint64_t runs = 1;
    for (size_t i = 1; i < ids_.size(); ++i) {
      runs += source_ids[i].value != source_ids[i - 1].value + 1 ||
              ids_[i].value != ids_[i - 1].value + 1;
    }
    return runs;
  }

  void measure(const std::string& how, const char* title, uint32_t layers_at_once) {
    const std::vector<GetOp> ops = segments(layers_at_once);
    Series raw{"raw UCX gets", {}, {}}, checked{"hand-off, digests checked", {}, {}},
        believed{"hand-off, digests off", {}, {}};
    for (uint32_t round = 0; round <= config_.rounds; ++round) {
      if (round == 1) raw = {raw.name}, checked = {checked.name}, believed = {believed.name};
      time(raw, [&] { read_raw(ops); });
      time(checked, [&] { hand_over(checking_, kChecking, how); });
      time(believed, [&] { hand_over(believing_, kBelieving, how); });
    }
    uint64_t gets = 0;
    for (const GetOp& op : ops) gets += op.count;
    std::printf(" %s: %lu gets of %lu KiB or so; %lu descriptors a hand-off, bound %lu\n", title,
                gets, ops[0].bytes >> 10, checking_.joined_.at(requests_ - 1).timings.segments,
                runs() * (config_.layers / layers_at_once));
    for (const Series& s : {raw, believed, checked}) s.print(median(raw.gbs));
  }

  void time(Series& series, const std::function<void()>& what) const {
    const double gb = static_cast<double>(config_.bytes()) / 1e9;
    const double cpu = cpu_seconds();
    const TimePoint begin = Clock::now();
    what();
    series.gbs.push_back(gb / to_seconds(Clock::now() - begin));
    series.cpu_ms_per_gb.push_back((cpu_seconds() - cpu) * 1e3 / gb);
  }
  void read_raw(const std::vector<GetOp>& ops) {
    line_.say("raw");
    need(raw_->read(ops, 64));
    line_.say("end");
  }
  // From the word to the source until everything is joined: all messages are in it.
  void hand_over(RealWorker& worker, WorkerId id, const std::string& how) {
    const uint64_t request = ++requests_;
    const TimePoint now = Clock::now();
    need(worker.driver().reserve(
        {test_key(request), kSource, ids_, 0, config_.tokens, kHash, now + seconds(30)}, now));
    line_.say(fmt::format("{} {} {}", how, request, id.value));
    worker.run_until([&] { return worker.joined_.contains(request); }, seconds(30));
    if (!worker.joined_.contains(request)) std::abort();
  }

  const BenchConfig config_;
  const Line line_;
  std::unique_ptr<RawUcx> raw_;
  RealWorker checking_, believing_;
  const std::vector<BlockId> ids_;
  uint64_t requests_ = 0;
};

int run(const BenchConfig& config) {
  spdlog::set_level(spdlog::level::warn);
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return 1;
  const pid_t child = ::fork();
  ::close(pair[child == 0 ? 0 : 1]);
  if (child == 0) {
    BenchSource(config, Line(pair[1])).run();
    return 0;
  }
  BenchSink(config, Line(pair[0])).run();
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace
}  // namespace baton::kvtransfer

int main(int argc, char** argv) {
  baton::kvtransfer::BenchConfig config;
  if (argc > 1) config.tls = argv[1];
  if ((argc != 2 && argc != 8) || (config.tls != "shm" && config.tls != "tcp")) {
    std::fprintf(stderr,
                 "transfer_bench shm|tcp [LAYERS KV_HEADS HEAD_DIM TOKENS ROUNDS RUN_BLOCKS]\n");
    return 1;
  }
  if (argc == 8) {
    uint32_t* const numbers[] = {&config.layers, &config.kv_heads, &config.head_dim,
                                 &config.tokens, &config.rounds,   &config.run_blocks};
    for (int i = 0; i < 6; ++i) *numbers[i] = static_cast<uint32_t>(std::atoi(argv[i + 2]));
  }
  return baton::kvtransfer::run(config);
}
