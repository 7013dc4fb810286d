// A worker in a process of its own, for tests that kill it. It says its hello on stdout, hears the
// other's on stdin, then does as the lines on stdin say and reports each event as a line:
//   source REQUEST TOKENS LAYER_DELAY_MS   hand a prompt over, a layer every so often
//   sink REQUEST TOKENS                    take one
//   flood                                  send messages for ever, as fast as it can
//   quit
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>

#include "common/base/log.h"
#include "kvtransfer/codec.h"
#include "tests/kvtransfer/peer_process.h"
#include "tests/kvtransfer/real_worker.h"

namespace baton::kvtransfer {
namespace {

class PeerProcess {
 public:
  PeerProcess(const std::string& tls, uint64_t id)
      : worker_({.id = id, .tls = tls, .layout = peer_layout(), .num_blocks = kPeerBlocks}) {}

  int run() {
    say(to_hex(encode(worker_.driver().hello())));
    std::string line = read_line();
    const result<Hello> theirs = decode_hello(from_hex(line));
    if (!theirs || !worker_.driver().add_peer(*theirs, Clock::now())) return 2;
    other_ = theirs->worker;
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
  static void say(const std::string& line) {
    std::puts(line.c_str());
    std::fflush(stdout);
  }
  static std::string read_line() {
    std::string line;
    for (char c = 0; ::read(STDIN_FILENO, &c, 1) == 1 && c != '\n';) line += c;
    return line;
  }

  void obey(const std::string& line) {
    std::istringstream words(line);
    std::string what;
    uint64_t request = 0;
    uint32_t tokens = 0;
    words >> what >> request >> tokens;
    if (what == "source") {
      words >> delay_ms_;
      computing_ = request;
      tokens_ = tokens;
      layer_ = 0;
      worker_.begin(test_key(request), other_, tokens, seconds(20));
    } else if (what == "sink") {
      tokens_ = tokens;
      worker_.reserve(test_key(request), other_, 0, tokens, seconds(20));
    } else if (what == "flood") {
      flood();
    } else {
      quit_ = true;
    }
  }

  [[noreturn]] void flood() {
    for (uint64_t request = 1;; ++request) {
      worker_.reserve(test_key(request), other_, 0, 16, seconds(20));
      (void)worker_.driver().abort(test_key(request), AbortReason::kCancelled, Clock::now());
      worker_.driver().poll(Clock::now());
    }
  }

  void compute_next_layer() {
    if (computing_ == 0) return;
    const HandoffKey key = test_key(computing_);
    worker_.compute_layers(key, layer_, layer_ + 1, 0, tokens_, computing_);
    if (++layer_ == peer_layout().num_layers()) {
      worker_.finish(key);
      computing_ = 0;
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
    return any;
  }

  RealWorker worker_;
  WorkerId other_;
  bool quit_ = false;
  uint64_t computing_ = 0;
  int delay_ms_ = 0;
  uint32_t tokens_ = 0, layer_ = 0;
};

}  // namespace
}  // namespace baton::kvtransfer

int main(int argc, char** argv) {
  if (argc != 3) return 1;
  spdlog::set_level(spdlog::level::off);
  return baton::kvtransfer::PeerProcess(argv[1], std::strtoull(argv[2], nullptr, 10)).run();
}
