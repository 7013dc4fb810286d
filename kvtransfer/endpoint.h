#pragma once

#include <cstdint>
#include <string>

namespace baton::kvtransfer {

// Memory of a worker that its peers may read.
struct MemoryRegion {
  uint64_t base = 0;   // address in its owner's process
  uint64_t bytes = 0;  // readable from base
  std::string key;     // the transport's access key, opaque to everyone else
  friend bool operator==(const MemoryRegion&, const MemoryRegion&) = default;
};

// A worker's cache that lies in the memory of a GPU, for peers of its host that map it there.
struct DeviceRegion {
  std::string gpu;     // whose memory it is, as its maker names it; empty: the cache is in no GPU's
  uint64_t bytes = 0;  // readable from its start; 0: nobody reads it
  std::string key;     // opaque to everyone but DeviceReads (device_reads.h)
  friend bool operator==(const DeviceRegion&, const DeviceRegion&) = default;
};

// How to reach one rank: everything a peer's transport needs to read it and to send to it. As
// powerful as a debugger's handle: it is given only to authenticated workers.
struct Endpoint {
  std::string address;         // the transport's own bytes, opaque to everyone else
  std::string host;            // equal on two workers: they may share memory. Empty: never
  bool shared_memory = false;  // its transport can read over shared memory
  int64_t pid = 0;             // meaningful to a worker with an equal host; 0: unknown
  MemoryRegion region;
  std::string software;  // whose bytes address and key are, with its version: "ucx 1.13"
  DeviceRegion device;   // instead of region
  friend bool operator==(const Endpoint&, const Endpoint&) = default;
};

}  // namespace baton::kvtransfer
