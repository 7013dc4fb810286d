#include "kvtransfer/read_turns.h"

#include <algorithm>

namespace baton::kvtransfer {

void ReadTurns::open(uint64_t read, uint64_t bytes) {
  reads_[read] = {.bytes = bytes};
  waiting_.push_back(read);
}

std::optional<ReadTurns::Turn> ReadTurns::next() {
  while (!waiting_.empty()) {
    const uint64_t id = waiting_.front();
    const auto it = reads_.find(id);
    if (it == reads_.end() || it->second.asked == it->second.bytes) {
      waiting_.pop_front();  // given up meanwhile
      continue;
    }
    Read& read = it->second;
    const uint64_t n = std::min(turn_bytes_, read.bytes - read.asked);
    if (under_way_ > 0 && under_way_ + n > window_bytes_) return std::nullopt;
    waiting_.pop_front();
    const bool first = read.asked == 0;
    read.asked += n;
    under_way_ += n;
    if (read.asked < read.bytes) waiting_.push_back(id);
    return Turn{id, read.asked, first};
  }
  return std::nullopt;
}

bool ReadTurns::arrived(uint64_t id, uint64_t bytes) {
  const auto it = reads_.find(id);
  if (it == reads_.end() || bytes > it->second.asked - it->second.arrived) return false;
  it->second.arrived += bytes;
  under_way_ -= bytes;
  return true;
}

bool ReadTurns::close(uint64_t id) {
  const auto it = reads_.find(id);
  if (it == reads_.end()) return true;
  it->second.bytes = it->second.asked;
  if (it->second.asked > 0) return false;
  reads_.erase(it);
  return true;
}

void ReadTurns::forget(uint64_t id) {
  const auto it = reads_.find(id);
  if (it == reads_.end()) return;
  under_way_ -= it->second.asked - it->second.arrived;
  reads_.erase(it);
}

}  // namespace baton::kvtransfer
