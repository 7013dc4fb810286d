#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "common/device/device.h"

namespace baton::collective {

// What the ranks of one worker, a process each, do together. All of them call the same in the same
// order; a call returns once this rank's part is done, which is when the others have come as far.
// Used by one thread of each rank.
//
// A rank that dies or stays away ends it for all: the first failure is kept, and calls after it do
// nothing. Results mean something only while health() is fine, so whoever lets results out looks at
// it first.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // all = the parts of all ranks, one after the other; rank r's is of bytes[r]. `part` may lie
  // anywhere but in `all`. Host memory.
  virtual void all_gather(device::Stream& stream, const std::byte* part,
                          std::span<const size_t> bytes, std::byte* all) = 0;
  // Each value becomes the sum of all ranks', mod 2^64. Host memory.
  virtual void all_reduce_sum(std::span<uint64_t> values) = 0;

  // Thread-safe.
  virtual status health() const = 0;
};

// Gives everybody what each has to say, in the order of ranks: how ranks that are not connected yet
// learn of each other. Called some times over, by all ranks equally often. Blocks; has its own
// deadline.
using Exchange = std::function<result<std::vector<std::string>>(const std::string& mine)>;

// Over Gloo, between CPU ranks of this host: by TCP on the loopback device, each pair connected
// directly. A rank that does not answer within `timeout` counts as dead. Blocks until all are
// connected; kUnavailable. kUnsupported where Baton was built without Gloo.
result<std::unique_ptr<Collective>> connect_gloo(uint32_t rank, uint32_t size,
                                                 const Exchange& exchange, milliseconds timeout);

}  // namespace baton::collective
