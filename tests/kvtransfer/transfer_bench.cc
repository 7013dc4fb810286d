// Baton's hand-off against a raw UCX loop that reads the same segments, in one run, between two
// processes. Rounds of all are interleaved; medians and spread are printed. With `fit`, for sizes
// from 16 tokens up to TOKENS, the line time = a + b * bytes of each, and how the slopes compare.
//   transfer_bench [fit] shm|tcp [LAYERS KV_HEADS HEAD_DIM TOKENS ROUNDS RUN_BLOCKS]
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
#include <string_view>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "kvtransfer/range_digest.h"
#include "kvtransfer/raw_ucx.h"
#include "prefill/told_layers.h"
#include "tests/kvtransfer/kv_pattern.h"
#include "tests/kvtransfer/line_fit.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

namespace baton::kvtransfer {
namespace {

constexpr WorkerId kSource{9}, kChecking{1}, kBelieving{2};
constexpr uint64_t kSeed = 42, kHash = 7;
constexpr size_t kWashBytes = 128u << 20;  // more than a CPU's caches

struct BenchConfig {
  bool fit = false;
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

// What is handed over, and in which ranges of layers it is announced: as a prefill worker does for
// a prompt of one chunk, or all at once, as for what was parked.
struct Job {
  bool as_computed = true;
  uint32_t tokens = 0;

  // The end of each range.
  std::vector<uint32_t> ends(const kvcache::KvLayout& layout) const {
    if (!as_computed) return {layout.num_layers()};
    std::vector<uint32_t> told;
    const uint64_t layer_bytes = tokens * layout.layer_bytes() / layout.block_tokens;
    prefill::tell_in_last_chunk(layout.num_layers(), layer_bytes, told);
    for (uint32_t& layer : told) ++layer;
    return told;
  }
};

// Lines of text over a socket pair.
class Wire {
 public:
  explicit Wire(int fd) : fd_(fd) {}
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
  BenchSource(const BenchConfig& config, Wire line)
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
      Job job;
      words >> what >> request >> sink >> job.as_computed >> job.tokens;
      if (what == "raw") {
        raw_->serve(line_.fd());
        line_.hear();
      } else if (what == "hand-over") {
        hand_over(test_key(request), WorkerId{sink}, job);
      } else {
        quit = true;
      }
    };
    while (!quit) worker_.run_until([&] { return quit; }, seconds(5), line_.fd(), obey);
  }

 private:
  void hand_over(const HandoffKey& key, WorkerId sink, const Job& job) {
    const TimePoint now = Clock::now();
    const uint32_t blocks = config_.layout().blocks_for(job.tokens);
    need(worker_.driver().begin({key, sink, job.tokens, kHash, now + seconds(30)}, now));
    std::vector<uint64_t> digests;  // [layers of a range, blocks]
    uint32_t layer = 0;
    for (const uint32_t end : job.ends(config_.layout())) {
      digests.clear();
      for (uint32_t l = layer; l < end; ++l) {
        const auto row = digests_.begin() + l * config_.blocks();
        digests.insert(digests.end(), row, row + blocks);
      }
      const LayersDone done{layer, end, 0, std::span(ids_).first(blocks), digests};
      need(worker_.driver().layers_done(key, done, now));
      layer = end;
      (void)worker_.driver().poll(Clock::now());  // computing takes longer than an announce
    }
    const TokenId first = 1;
    need(worker_.driver().finished(key, {&first, 1}, now));
  }

  const BenchConfig config_;
  const Wire line_;
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
  BenchSink(const BenchConfig& config, Wire line)
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
                runs(config_.tokens), config_.rounds);
    for (const bool as_computed : {true, false}) {
      const Job job{as_computed, config_.tokens};
      config_.fit ? fit(job) : measure(job);
    }
    line_.say("quit");
  }

 private:
  std::vector<GetOp> segments(const Job& job) {
    const std::vector<BlockId> source_ids = config_.scattered(1);
    const kvcache::KvLayout layout = config_.layout();
    std::vector<Segment> plan;
    uint32_t layer = 0;
    for (const uint32_t end : job.ends(config_.layout())) {
      plan_transfer(layout, {source_ids, 0}, layout, {ids_, 0}, {layer, end, 0, job.tokens}, plan);
      layer = end;
    }
    std::vector<GetOp> ops;
    for (const Segment& s : plan) {
      ops.push_back({s.source_offset, raw_->memory().data() + s.sink_offset, s.bytes, s.count,
                     s.source_stride, s.sink_stride});
    }
    return ops;
  }

  // Blocks that follow each other on both sides.
  uint64_t runs(uint32_t tokens) const {
    const std::vector<BlockId> source_ids = config_.scattered(1);
    uint64_t runs = 1;
    for (size_t i = 1; i < config_.layout().blocks_for(tokens); ++i) {
      runs += source_ids[i].value != source_ids[i - 1].value + 1 ||
              ids_[i].value != ids_[i - 1].value + 1;
    }
    return runs;
  }

  // Descriptors: one a range of layers of a run.
  uint64_t bound(const Job& job) const {
    return runs(job.tokens) * job.ends(config_.layout()).size();
  }

  static const char* title(const Job& job) {
    return job.as_computed ? "in ranges of layers, as computed" : "whole blocks";
  }

  void measure(const Job& job) {
    const std::vector<GetOp> ops = segments(job);
    Series raw{"raw UCX gets", {}, {}}, checked{"hand-off, digests checked", {}, {}},
        believed{"hand-off, digests off", {}, {}};
    for (uint32_t round = 0; round <= config_.rounds; ++round) {
      if (round == 1) raw = {raw.name}, checked = {checked.name}, believed = {believed.name};
      time(raw, [&] { read_raw(ops); });
      time(checked, [&] { hand_over(checking_, kChecking, job); });
      time(believed, [&] { hand_over(believing_, kBelieving, job); });
    }
    uint64_t gets = 0;
    for (const GetOp& op : ops) gets += op.count;
    std::printf(" %s: %lu gets of %lu KiB or so; %lu descriptors a hand-off, bound %lu\n",
                title(job), gets, ops[0].bytes >> 10,
                checking_.joined_.at(requests_ - 1).timings.segments, bound(job));
    for (const Series& s : {raw, believed, checked}) s.print(median(raw.gbs));
  }

  void time(Series& series, const std::function<void()>& what) {
    const double gb = static_cast<double>(config_.bytes()) / 1e9;
    wash_caches();
    const double cpu = cpu_seconds();
    series.gbs.push_back(gb / seconds_of(what));
    series.cpu_ms_per_gb.push_back((cpu_seconds() - cpu) * 1e3 / gb);
  }
  // Each begins with caches that hold nothing of it, nor what another has left to be written back.
  void wash_caches() {
    uint64_t sum = 0;
    for (size_t i = 0; i < wash_.size(); i += 64 / sizeof wash_[0]) sum += wash_[i];
    wash_[0] = sum;
  }
  static double seconds_of(const std::function<void()>& what) {
    const TimePoint begin = Clock::now();
    what();
    return to_seconds(Clock::now() - begin);
  }

  void fit(const Job& longest) {
    std::vector<double> bytes, raw, checked, believed;
    uint64_t descriptors = 0;  // of the longest
    for (uint32_t round = 0; round <= config_.rounds; ++round) {
      for (uint32_t tokens = 16; tokens <= config_.tokens; tokens *= 2) {
        const Job job{longest.as_computed, tokens};
        const std::vector<GetOp> ops = segments(job);
        const auto timed = [this](const std::function<void()>& what) {
          wash_caches();
          return seconds_of(what);
        };
        const double times[] = {timed([&] { read_raw(ops); }),
                                timed([&] { hand_over(believing_, kBelieving, job); }),
                                timed([&] { hand_over(checking_, kChecking, job); })};
        descriptors = std::max(descriptors, checking_.joined_.at(requests_).timings.segments);
        if (round == 0) continue;  // touches all memory
        bytes.push_back(tokens / 16.0 * static_cast<double>(config_.layout().block_bytes()));
        raw.push_back(times[0]);
        believed.push_back(times[1]);
        checked.push_back(times[2]);
      }
    }
    const Line base = fit_line(bytes, raw);
    std::printf(" %s: time = a + b * bytes, least absolute deviations, %zu of each\n",
                title(longest), bytes.size());
    std::printf("  %lu descriptors a hand-off at most, bound %lu\n", descriptors, bound(longest));
    print("raw UCX gets", base, base);
    print("hand-off, digests off", fit_line(bytes, believed), base);
    print("hand-off, digests checked", fit_line(bytes, checked), base);
  }
  static void print(const char* name, const Line& line, const Line& raw) {
    std::printf("  %-28s a %6.0f us, 1/b %6.2f GB/s, %6.1f %% of raw\n", name, line.offset * 1e6,
                1e-9 / line.slope, 100 * raw.slope / line.slope);
  }

  void read_raw(const std::vector<GetOp>& ops) {
    line_.say("raw");
    need(raw_->read(ops, 64));
    line_.say("end");
  }
  // From the word to the source until everything is joined: all messages are in it.
  void hand_over(RealWorker& worker, WorkerId id, const Job& job) {
    const uint64_t request = ++requests_;
    const TimePoint now = Clock::now();
    const auto end = ids_.begin() + config_.layout().blocks_for(job.tokens);
    need(worker.driver().reserve(
        {test_key(request), kSource, {ids_.begin(), end}, 0, job.tokens, kHash, now + seconds(30)},
        now));
    line_.say(
        fmt::format("hand-over {} {} {:d} {}", request, id.value, job.as_computed, job.tokens));
    worker.run_until([&] { return worker.joined_.contains(request); }, seconds(30));
    if (!worker.joined_.contains(request)) std::abort();
  }

  const BenchConfig config_;
  const Wire line_;
  std::unique_ptr<RawUcx> raw_;
  RealWorker checking_, believing_;
  const std::vector<BlockId> ids_;
  std::vector<uint64_t> wash_ = std::vector<uint64_t>(kWashBytes / sizeof(uint64_t), 1);
  uint64_t requests_ = 0;
};

int run(const BenchConfig& config) {
  spdlog::set_level(spdlog::level::warn);
  int pair[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return 1;
  const pid_t child = ::fork();
  ::close(pair[child == 0 ? 0 : 1]);
  if (child == 0) {
    BenchSource(config, Wire(pair[1])).run();
    return 0;
  }
  BenchSink(config, Wire(pair[0])).run();
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace
}  // namespace baton::kvtransfer

int main(int argc, char** argv) {
  baton::kvtransfer::BenchConfig config;
  config.fit = argc > 1 && std::string_view(argv[1]) == "fit";
  if (config.fit) --argc, ++argv;
  if (argc > 1) config.tls = argv[1];
  if ((argc != 2 && argc != 8) || (config.tls != "shm" && config.tls != "tcp")) {
    std::fprintf(stderr,
                 "transfer_bench [fit] shm|tcp "
                 "[LAYERS KV_HEADS HEAD_DIM TOKENS ROUNDS RUN_BLOCKS]\n");
    return 1;
  }
  if (argc == 8) {
    uint32_t* const numbers[] = {&config.layers, &config.kv_heads, &config.head_dim,
                                 &config.tokens, &config.rounds,   &config.run_blocks};
    for (int i = 0; i < 6; ++i) *numbers[i] = static_cast<uint32_t>(std::atoi(argv[i + 2]));
  }
  return baton::kvtransfer::run(config);
}
