#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "common/collective/collective.h"

namespace baton::collective {

// Sums of host values beside a device that runs behind the host: the first rank waits for them, the
// others hand theirs to a thread and go on. A rank that waited there for the first could wait for
// ever: for the first to be there it may need work that this rank has still to enqueue.
class HostSums {
 public:
  // `ranks` sums on the thread that calls, as connect_gloo's does.
  explicit HostSums(std::unique_ptr<Collective> ranks);
  ~HostSums();  // what still waits is dropped, what is under way is waited for

  void sum_on_first(std::span<uint64_t> values);
  Collective& ranks() { return *ranks_; }
  const Collective& ranks() const { return *ranks_; }

 private:
  static constexpr size_t kMostWaiting = 4096;  // far more than two steps' layers

  void run();

  const std::unique_ptr<Collective> ranks_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::vector<uint64_t>> waiting_;
  std::vector<std::vector<uint64_t>> spare_;  // for their memory
  bool stop_ = false;
  std::thread thread_;  // none on the first rank
};

}  // namespace baton::collective
