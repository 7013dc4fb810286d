#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/kvcache/layout.h"
#include "kvtransfer/device_reads.h"

namespace baton::kvtransfer {

// What goes wrong in reads, how often. Probabilities in [0, 1].
struct DeviceFaults {
  double fail_read = 0;     // part of it is written
  double corrupt_read = 0;  // one byte of it is changed
  Duration delay{};         // until it ends, up to this; what is read is as it is then
  bool fail_map = false;
};

// The GPUs of a host whose memory is the host's: for tests without one. Memory lives as long as
// this, as what is mapped does when its owner dies. Time stands still unless advanced. Whoever
// breaks a rule of device_reads.h ends the process with a sentence.
class FakeDevices {
 public:
  explicit FakeDevices(uint64_t seed = 1) : random_(seed) {}

  // Those of a worker whose cache has so many blocks.
  std::unique_ptr<DeviceReads> make_reads(const kvcache::KvLayout& layout, uint32_t num_blocks,
                                          bool is_read = true);
  // The cache of one, by what it says of it.
  std::span<std::byte> memory(const DeviceRegion& region) { return memory_.at(region.gpu); }
  // Of the one made last.
  std::span<std::byte> last_memory() { return memory_.rbegin()->second; }

  void set_faults(const DeviceFaults& faults) { faults_ = faults; }
  void advance(TimePoint now);
  TimePoint next_event() const;  // TimePoint::max() if nothing waits
  size_t mappings() const { return mappings_; }
  size_t most_at_once() const { return most_at_once_; }

 private:
  friend class FakeDeviceReads;
  struct Pending {
    class FakeDeviceReads* reader = nullptr;
    uint64_t number = 0;
  };
  bool chance(double p) { return p > 0 && std::uniform_real_distribution<>(0, 1)(random_) < p; }
  TimePoint due();

  std::mt19937_64 random_;
  DeviceFaults faults_;
  TimePoint now_{};
  std::map<std::string, std::vector<std::byte>> memory_;
  std::multimap<TimePoint, Pending> pending_;
  uint32_t made_ = 0;
  uint64_t next_ = 1;
  size_t mappings_ = 0, most_at_once_ = 0;
};

}  // namespace baton::kvtransfer
