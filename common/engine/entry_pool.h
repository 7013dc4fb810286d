#pragma once

#include <cassert>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

namespace baton::engine {

// Things that are known by a small number which is used again after they are gone. References stay
// valid until remove().
template <class T>
class EntryPool {
 public:
  uint32_t add(T value) {
    if (free_.empty()) {
      entries_.emplace_back(std::move(value));
      return static_cast<uint32_t>(entries_.size() - 1);
    }
    const uint32_t index = free_.back();
    free_.pop_back();
    entries_[index].emplace(std::move(value));
    return index;
  }
  void remove(uint32_t index) {
    assert(entries_[index]);
    entries_[index].reset();
    free_.push_back(index);
  }
  T& operator[](uint32_t index) {
    assert(entries_[index]);
    return *entries_[index];
  }
  const T& operator[](uint32_t index) const {
    assert(entries_[index]);
    return *entries_[index];
  }
  size_t size() const { return entries_.size() - free_.size(); }

 private:
  std::deque<std::optional<T>> entries_;
  std::vector<uint32_t> free_;
};

}  // namespace baton::engine
