#include "common/collective/host_sums.h"

#include <utility>

namespace baton::collective {

HostSums::HostSums(std::unique_ptr<Collective> ranks) : ranks_(std::move(ranks)) {
  if (ranks_->rank() != 0) thread_ = std::thread([this] { run(); });
}

HostSums::~HostSums() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void HostSums::sum_on_first(std::span<uint64_t> values) {
  if (ranks_->rank() == 0) return ranks_->sum_on_first(values);
  if (values.empty() || !ranks_->health()) return;
  std::unique_lock lock(mutex_);
  if (waiting_.size() == kMostWaiting) {
    lock.unlock();
    return ranks_->give_up(error(Errc::kUnavailable, "the first rank takes no sums any more"));
  }
  std::vector<uint64_t> copy;
  if (!spare_.empty()) {
    copy = std::move(spare_.back());
    spare_.pop_back();
  }
  copy.assign(values.begin(), values.end());
  waiting_.push_back(std::move(copy));
  changed_.notify_one();
}

void HostSums::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stop_ || !waiting_.empty(); });
    if (stop_) return;
    std::vector<uint64_t> values = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    ranks_->sum_on_first(values);
    lock.lock();
    spare_.push_back(std::move(values));
  }
}

}  // namespace baton::collective
