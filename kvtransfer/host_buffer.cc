#include "kvtransfer/host_buffer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/base/host_memory.h"

namespace baton::kvtransfer {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSlice = 64u << 20;  // filled in some 20 ms

}  // namespace

status room_on_this_host(uint64_t bytes) {
  return check_room("what is left to fill of the KV cache", bytes, read_host_memory());
}

status zero_fill(std::span<std::byte> memory, const Room& room) {
  while (!memory.empty()) {
    if (memory.size() > kSlice) BATON_CHECK_OK(room(memory.size()));
    const size_t slice = std::min(kSlice, memory.size());
    std::memset(memory.data(), 0, slice);
    memory = memory.subspan(slice);
  }
  return {};
}

result<HostBuffer> allocate_host_buffer(size_t bytes) {
  const size_t rounded = (bytes + kPage - 1) / kPage * kPage;
  HostBuffer buffer;
  if (rounded >= bytes) buffer.reset(static_cast<std::byte*>(std::aligned_alloc(kPage, rounded)));
  if (!buffer) {
    return error(Errc::kResourceExhausted,
                 fmt::format("the system gives no {} bytes of memory", bytes));
  }
  BATON_CHECK_OK(zero_fill({buffer.get(), rounded}));
  return buffer;
}

}  // namespace baton::kvtransfer
