#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/router/cpu_use.h"
#include "tests/router/event_times.h"

namespace baton::router {

// The least that can be done for a stream's clients: one thread, and one send() for an event, of as
// many bytes as the router's have. A step is four bytes from a pipe; nothing is read, found or
// written beside: what it sends is ready. The roof to the router's figures.
class BareRelay {
 public:
  struct Options {
    size_t streams = 0;
    std::chrono::nanoseconds step{};
    std::vector<std::chrono::nanoseconds> phases;  // of each group of streams that step together
    size_t event_bytes = 200;                      // with what HTTP puts around it
  };
  // Listens; its thread, which has the measured processor, waits for all streams, then serves them
  // to their end.
  BareRelay(Options options, const Processors& processors, SendTimes& times);
  ~BareRelay();

  uint16_t port() const { return port_; }
  CpuUse use() const { return cpu_use_of(tid_); }

 private:
  void serve();
  void accept_all();
  void feed();  // on a thread of its own, in the workers' stead

  const Options options_;
  SendTimes& times_;
  const std::string event_;
  int listening_ = -1;
  uint16_t port_ = 0;
  std::array<int, 2> steps_;  // a pipe that says which group steps
  std::vector<int> fds_;      // of each stream
  std::atomic<bool> over_ = false;
  std::atomic<pid_t> tid_ = 0;
  std::thread thread_;
};

}  // namespace baton::router
