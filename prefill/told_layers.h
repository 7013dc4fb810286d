#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace baton::prefill {

// Of less nobody is told while more is to come: it is read in some 0.1 ms over 40 Gbit/s.
inline constexpr uint64_t kLeastToldBytes = 512 << 10;

// After which layers of a prompt's last chunk its reader is told, ascending: a quarter of them, and
// half of what is left each time, so that at its end little is left to be read: one layer, or
// kLeastToldBytes if layers are smaller. Each word to a reader takes time of the core that
// computes. `layer_bytes`: that the chunk writes, of each. Replaces `told`, whose memory it keeps.
inline void tell_in_last_chunk(uint32_t layers, uint64_t layer_bytes, std::vector<uint32_t>& told) {
  told.clear();
  const uint64_t each = std::max<uint64_t>(layer_bytes, 1);
  const uint64_t least = (kLeastToldBytes + each - 1) / each;
  uint64_t done = std::max<uint64_t>((layers + 3) / 4, least);
  // What would be left is too little to wait for: it goes with what comes before.
  for (; done + least <= layers; done += std::max<uint64_t>(least, (layers - done) / 2)) {
    told.push_back(static_cast<uint32_t>(done) - 1);
  }
  told.push_back(layers - 1);
}

}  // namespace baton::prefill
