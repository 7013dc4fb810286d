#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/router/cpu_use.h"

namespace baton::router {

// An event that a client read; nanoseconds of the system's clock.
struct EventSeen {
  uint32_t stream = 0, index = 0;
  int64_t arrived_ns = 0;  // in the client's socket, by the kernel's stamp of the packet
  int64_t read_ns = 0;     // by the client
};

// What was seen while every stream was under way: from the moment when the last one had its first
// token to when the first one had all of them.
struct StreamsSeen {
  size_t complete = 0;  // streams whose events all came; not only while all were under way
  size_t events = 0;    // of all streams
  size_t bytes = 0;
  double seconds = 0;
  CpuUse server;     // of the thread that serves
  CpuUse clients;    // of the thread that reads
  size_t reads = 0;  // of watched streams, that brought something
  std::vector<EventSeen> watched;
};

// Opens `streams` connections to a port of this machine, asks on each for so many tokens and reads
// until all have ended, or nothing comes for 20 s; on the calling thread. So many of them as
// `watch`, drawn at random, are read as soon as something comes, by epoll; the others now and then,
// several events at once: else clients would take far more of this machine than the server does.
// The stamp of a packet is from before it waits for anybody on the receiving side. Where several
// came before a client looked, it is the last one's.
StreamsSeen run_streams(uint16_t port, size_t streams, size_t tokens, size_t watch,
                        const std::function<CpuUse()>& server_use);

// What a client sends, and the number that it says.
std::string stream_request(size_t stream, size_t tokens);
size_t stream_of_request(const std::string& bytes);

}  // namespace baton::router
