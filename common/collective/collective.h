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
// order; a call is done once this rank's part is, which is when the others have come as far. Used
// by one thread of each rank, but for what is said to be thread-safe.
//
// A rank that dies or stays away ends it for all: the first failure is kept, and calls after it do
// nothing. Results mean something only while health() is fine, so whoever lets results out looks at
// it first.
class Collective {
 public:
  virtual ~Collective() = default;
  virtual uint32_t rank() const = 0;
  virtual uint32_t size() const = 0;

  // Enqueues: all = the parts of all ranks, one after the other; rank r's is of bytes[r]. `part`
  // may lie anywhere but in `all`. Memory of the device that `stream` is of; may be recorded, by
  // all ranks or none.
  virtual void all_gather(device::Stream& stream, const std::byte* part,
                          std::span<const size_t> bytes, std::byte* all) = 0;

  // On the first rank each value becomes the sum of all ranks', mod 2^64; this blocks until all
  // have given theirs. What the others' become means nothing, and where the device runs behind the
  // host they do not wait for the first: it may be waiting for their next step. Host memory.
  virtual void sum_on_first(std::span<uint64_t> values) = 0;

  // Says that what gathers is under way on the device, or has come on, or (false) that nothing is
  // any more. Where it comes on no more, a rank counts as lost after a time, and what is enqueued
  // comes to an end. Nothing to do where the device runs inline. Thread-safe.
  virtual void tell_under_way(bool under_way) = 0;

  // Ends it, as a lost rank does: what the device waits for comes to an end. For who knows better
  // that a rank is gone. Thread-safe; does not block.
  virtual void give_up(const Error& why) = 0;

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
