// A worker in a process of its own, for tests that kill it. It says its hello on stdout, hears the
// other's on stdin, then does as the lines on stdin say and reports each event as a line:
//   source REQUEST TOKENS LAYER_DELAY_MS   hand a prompt over, a layer every so often
//   begin REQUEST TOKENS [GENERATION]      the same in steps of their own
//   layers REQUEST END                     compute up to this layer
//   finish REQUEST
//   go_on REQUEST TOKENS                   whatever of these steps is still to be done
//   sink REQUEST TOKENS [GENERATION]       take one
//   drain REQUEST                          give it up in the next read, and stay so until told "on"
//   let_go                                 give up all
//   state                                  say how much is held
//   pair HELLO                             once more
//   flood                                  send messages for ever, as fast as it can
//   quit
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

namespace baton::kvtransfer {
namespace {

class PeerProcess {
 public:
  explicit PeerProcess(const RealWorkerOptions& options) : worker_(options) {}

  int run() {
    say(to_hex(encode(worker_.driver().hello())));
    if (!pair_with(read_line())) return 2;
    while (!quit_) {
      const bool idle = computing_ == 0;
      worker_.run_until([&] { return quit_ || report() || (idle && computing_ != 0); },
                        milliseconds(idle ? 1000 : delay_ms_), STDIN_FILENO,
                        [this] { obey(read_line()); });
      compute_next_layer();
    }
    return 0;
  }

 private:
  // A prompt whose source this is.
  struct Prompt {
    HandoffKey key;
    uint32_t tokens = 0, layer = 0;
    bool finished = false;
  };

  static void say(const std::string& line) {
    std::puts(line.c_str());
    std::fflush(stdout);
  }
  static std::string read_line() {
    std::string line;
    for (char c = 0; ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

  bool pair_with(const std::string& hello) {
    const result<Hello> theirs = decode_hello(from_hex(hello));
    if (!theirs || !worker_.driver().add_peer(*theirs, Clock::now())) return false;
    other_ = theirs->worker;
    return true;
  }

  void obey(const std::string& line) {
    std::istringstream words(line);
    std::string what;
    words >> what;
    if (what == "pair") {
      std::string hello;
      words >> hello;
      say(pair_with(hello) ? "paired" : "not paired");
      return;
    }
    uint64_t request = 0;
    uint32_t number = 0, more = 0;
    words >> request >> number >> more;
    obey(what, request, number, more);
  }

  void obey(const std::string& what, uint64_t request, uint32_t number, uint32_t more) {
    if (what == "source") {
      delay_ms_ = static_cast<int>(more);
      computing_ = request;
      begin(test_key(request), number);
    } else if (what == "begin") {
      begin(test_key(request, std::max(more, 1u)), number);
    } else if (what == "layers") {
      compute(prompts_[request], number);
    } else if (what == "finish") {
      finish(prompts_[request]);
    } else if (what == "go_on") {
      if (!prompts_.contains(request)) begin(test_key(request), number);
      compute(prompts_[request], peer_layout().num_layers());
      finish(prompts_[request]);
    } else if (what == "sink") {
      tokens_ = number;
      sinks_.push_back(test_key(request, std::max(more, 1u)));
      worker_.reserve(sinks_.back(), other_, 0, number, seconds(60));
    } else if (what == "drain") {
      drain(test_key(request));
    } else if (what == "let_go") {
      let_go();
    } else if (what == "state") {
      say_state();
    } else if (what == "flood") {
      flood();
    } else if (what != "on") {
      quit_ = true;
    }
  }

  // It may have ended already: then the rest is told to nobody.
  void begin(const HandoffKey& key, uint32_t tokens) {
    const TimePoint now = Clock::now();
    prompts_[key.request.value] = {.key = key, .tokens = tokens};
    (void)worker_.driver().begin({key, other_, tokens, kTestTokenHash, now + seconds(60)}, now);
  }
  void compute(Prompt& p, uint32_t end) {
    if (p.layer >= end) return;
    worker_.compute_layers(p.key, p.layer, end, 0, p.tokens, p.key.request.value);
    p.layer = end;
  }
  void finish(Prompt& p) {
    if (!std::exchange(p.finished, true)) worker_.finish(p.key);
  }

  void compute_next_layer() {
    if (computing_ == 0) return;
    Prompt& p = prompts_.at(computing_);
    compute(p, p.layer + 1);
    if (p.layer < peer_layout().num_layers()) return;
    finish(p);
    computing_ = 0;
  }

  void drain(const HandoffKey& key) {
    say("will drain");
    worker_.run_until([this] { return worker_.driver().sink().reads_in_flight() > 0; }, seconds(5));
    (void)worker_.driver().cancel(key, Clock::now());
    say(fmt::format("draining {}", worker_.driver().sink().reads_in_flight()));
    (void)read_line();
  }

  void let_go() {
    const TimePoint now = Clock::now();
    for (const auto& [request, p] : prompts_) {
      (void)worker_.driver().abort(p.key, AbortReason::kCancelled, now);
    }
    for (const HandoffKey& key : sinks_) (void)worker_.driver().cancel(key, now);
  }

  void say_state() {
    const Source& source = worker_.driver().source();
    const Sink& sink = worker_.driver().sink();
    say(fmt::format("state {} {} {} {} {} {}", source.num_handoffs() + sink.num_handoffs(),
                    source.num_early_credits(), source.parked_blocks(), sink.held_blocks(),
                    sink.reads_in_flight(), sink.stats().read_bytes));
  }

  [[noreturn]] void flood() {
    for (uint64_t request = 1;; ++request) {
      worker_.reserve(test_key(request), other_, 0, 16, seconds(20));
      (void)worker_.driver().abort(test_key(request), AbortReason::kCancelled, Clock::now());
      worker_.driver().poll(Clock::now());
    }
  }

  // Says what is new; true if anything was.
  bool report() {
    bool any = false;
    const auto tell = [&any](auto& events, auto text) {
      for (const auto& [request, event] : events) say(text(request, event)), any = true;
      events.clear();
    };
    tell(worker_.joined_, [this](uint64_t r, const Joined&) {
      return fmt::format("joined {} {}", r, worker_.wrong_vectors(0, tokens_, r));
    });
    tell(worker_.source_released_,
         [](uint64_t r, const SourceReleased&) { return fmt::format("released {}", r); });
    tell(worker_.sink_failed_,
         [](uint64_t r, const Error& e) { return fmt::format("sink_failed {} {}", r, e.message); });
    tell(worker_.source_failed_, [](uint64_t r, const Error& e) {
      return fmt::format("source_failed {} {}", r, e.message);
    });
    tell(worker_.sink_lost_,
         [](uint64_t r, const Error& e) { return fmt::format("sink_lost {} {}", r, e.message); });
    for (const WorkerId worker : worker_.lost_) say(fmt::format("lost {}", worker.value));
    worker_.lost_.clear();
    return any;
  }

  RealWorker worker_;
  WorkerId other_;
  bool quit_ = false;
  std::map<uint64_t, Prompt> prompts_;
  std::vector<HandoffKey> sinks_;
  uint64_t computing_ = 0;  // one of prompts_, layer by layer
  int delay_ms_ = 0;
  uint32_t tokens_ = 0;  // of what is taken
};

}  // namespace
}  // namespace baton::kvtransfer

// TLS ID [LEASE_MS PEER_TIMEOUT_MS]
int main(int argc, char** argv) {
  using namespace baton::kvtransfer;
  if (argc != 3 && argc != 5) return 1;
  spdlog::set_default_logger(spdlog::stderr_logger_st("peer"));
  spdlog::set_level(spdlog::level::err);  // why it ended itself
  RealWorkerOptions options{.id = std::strtoull(argv[2], nullptr, 10),
                            .tls = argv[1],
                            .layout = peer_layout(),
                            .num_blocks = kPeerBlocks};
  if (argc == 5) {
    options.lease = baton::milliseconds(std::atoi(argv[3]));
    options.peer_timeout = baton::milliseconds(std::atoi(argv[4]));
  }
  return PeerProcess(options).run();
}
