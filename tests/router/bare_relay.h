#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "tests/router/stream_clients.h"

namespace baton::router {

// The least that can be done for a stream's clients: one thread, and one send() for an event, of as
// many bytes as the router's have. Nothing comes from a worker, nothing is read, found or written:
// what a step sends is ready. The roof to the router's figures.
class BareRelay {
 public:
  struct Options {
    size_t streams = 0;
    size_t groups = 1;  // of streams that step together, each at its own time
    std::chrono::nanoseconds step{};
    size_t event_bytes = 200;  // with what HTTP puts around it
  };
  // Listens; its thread waits for all streams, then serves them to their end.
  BareRelay(Options options, SendTimes& times);
  ~BareRelay();

  uint16_t port() const { return port_; }
  double cpu_seconds();

 private:
  void serve();
  void accept_all();
  void step(size_t group, size_t index);

  const Options options_;
  SendTimes& times_;
  const std::string event_;
  int listening_ = -1;
  uint16_t port_ = 0;
  std::vector<int> fds_;  // of each stream
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

// CPU seconds of a thread that runs.
double cpu_seconds_of(std::thread& thread);

}  // namespace baton::router
