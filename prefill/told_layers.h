#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace baton::prefill {

// After which layers of a prompt's last chunk its reader is told, ascending: a quarter of them, and
// half of what is left each time, so that only one layer is left to be read at its end. Each word
// to a reader takes time of the core that computes. Replaces `told`, whose memory it keeps.
inline void tell_in_last_chunk(uint32_t layers, std::vector<uint32_t>& told) {
  told.clear();
  uint32_t done = (layers + 3) / 4;
  for (; done < layers; done += std::max(1u, (layers - done) / 2)) told.push_back(done - 1);
  told.push_back(layers - 1);
}

}  // namespace baton::prefill
