#pragma once

#include <cstddef>

namespace baton::kvcache {

// memcpy for kilobytes and more that are not read again soon: past the CPU's caches where `to` is
// aligned for that, so that memory has less to do, by the widest instructions of this CPU. What was
// written is there for everybody when this returns.
void copy_past_caches(const std::byte* from, std::byte* to, size_t bytes);

}  // namespace baton::kvcache
