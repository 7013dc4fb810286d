#include "router/placement/prefix_map.h"

#include <algorithm>
#include <bit>

namespace baton::router {
namespace {

// The finalizer of MurmurHash3: every bit of the input moves half of the output's.
uint64_t mix(uint64_t h) {
  h ^= h >> 33;
  h *= 0xff51afd7ed558ccdULL;
  h ^= h >> 33;
  h *= 0xc4ceb9fe1a85ec53ULL;
  return h ^ (h >> 33);
}

}  // namespace

PrefixMap::PrefixMap(size_t entries, uint64_t key)
    : entries_(std::bit_ceil(std::max(entries, kWays))), key_(mix(key + 1)) {}

void PrefixMap::hash(std::string_view salt, std::span<const TokenId> tokens,
                     std::vector<uint64_t>& units) const {
  units.clear();
  uint64_t h = key_;
  for (const char c : salt) h = mix(h ^ static_cast<unsigned char>(c));
  for (size_t i = 0; i + kUnit <= tokens.size(); i += kUnit) {
    for (size_t t = 0; t < kUnit; t += 2) {
      const uint64_t pair = static_cast<uint32_t>(tokens[i + t]) |
                            uint64_t{static_cast<uint32_t>(tokens[i + t + 1])} << 32;
      h = std::rotl((h ^ pair) * 0x9e3779b97f4a7c15ULL, 29);
    }
    h = mix(h);
    units.push_back(h == 0 ? 1 : h);
  }
}

std::span<PrefixMap::Entry> PrefixMap::row(uint64_t unit) {
  const size_t rows = entries_.size() / kWays;
  return std::span(entries_).subspan((unit & (rows - 1)) * kWays, kWays);
}

std::span<const PrefixMap::Entry> PrefixMap::row(uint64_t unit) const {
  const size_t rows = entries_.size() / kWays;
  return std::span(entries_).subspan((unit & (rows - 1)) * kWays, kWays);
}

// The longest match of each worker: all shorter ones are of it, too, or were dropped; a gap costs
// nothing here.
void PrefixMap::find(std::span<const uint64_t> units, std::vector<Match>& matches) const {
  matches.clear();
  for (const uint64_t unit : units) {  // memory is waited for once
    const std::span<const Entry> ways = row(unit);
    __builtin_prefetch(&ways.front());
    __builtin_prefetch(&ways.back());
  }
  for (size_t i = units.size(); i-- > 0;) {
    for (const Entry& entry : row(units[i])) {
      if (entry.key != units[i]) continue;
      const WorkerId worker = workers_[entry.worker];
      if (worker == WorkerId{}) continue;
      if (std::ranges::find(matches, worker, &Match::worker) != matches.end()) continue;
      matches.push_back({worker, static_cast<uint32_t>(i + 1) * kUnit});
    }
  }
}

void PrefixMap::add(std::span<const uint64_t> units, WorkerId worker) {
  const uint32_t index = index_of(worker);
  ++clock_;
  for (const uint64_t unit : units) {
    const std::span<Entry> ways = row(unit);
    const auto same = [&](const Entry& e) { return e.key == unit && e.worker == index; };
    auto it = std::ranges::find_if(ways, same);
    if (it == ways.end()) it = std::ranges::min_element(ways, {}, &Entry::used);
    *it = {unit, index, clock_};
  }
}

void PrefixMap::forget(WorkerId worker) {
  const auto known = std::ranges::find(workers_, worker);
  if (known == workers_.end()) return;
  const auto index = static_cast<uint32_t>(known - workers_.begin());
  for (Entry& entry : entries_) {
    if (entry.worker == index) entry = {};
  }
  *known = {};
}

uint32_t PrefixMap::index_of(WorkerId worker) {
  const auto known = std::ranges::find(workers_, worker);
  if (known != workers_.end()) return static_cast<uint32_t>(known - workers_.begin());
  const auto free = std::ranges::find(workers_, WorkerId{});
  if (free != workers_.end()) {
    *free = worker;
    return static_cast<uint32_t>(free - workers_.begin());
  }
  workers_.push_back(worker);
  return static_cast<uint32_t>(workers_.size() - 1);
}

}  // namespace baton::router
