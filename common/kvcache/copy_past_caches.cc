#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kvcache/copy_past_caches.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "common/kvcache/copy_past_caches.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace baton::kvcache::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// What is so far ahead is on its way from memory: the CPU looks ahead itself, but not so far.
constexpr size_t kAheadBytes = 4096;

void copy_past_caches(const std::byte* from, std::byte* to, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t n = hn::Lanes(d), step = std::max<size_t>(4 * n, 64);
  const auto* in = reinterpret_cast<const uint8_t*>(from);
  auto* out = reinterpret_cast<uint8_t*>(to);
  size_t at = 0;
  if (reinterpret_cast<uintptr_t>(to) % n == 0) {
    for (; at + step <= bytes; at += step) {
      if (at + kAheadBytes + step <= bytes) {
        for (size_t line = 0; line < step; line += 64) {
          __builtin_prefetch(in + at + kAheadBytes + line, 0, 0);
        }
      }
      for (size_t i = 0; i < step; i += 4 * n) {
        const auto a = hn::LoadU(d, in + at + i), b = hn::LoadU(d, in + at + i + n),
                   c = hn::LoadU(d, in + at + i + 2 * n), e = hn::LoadU(d, in + at + i + 3 * n);
        hn::Stream(a, d, out + at + i);
        hn::Stream(b, d, out + at + i + n);
        hn::Stream(c, d, out + at + i + 2 * n);
        hn::Stream(e, d, out + at + i + 3 * n);
      }
    }
    hwy::FlushStream();
  }
  std::memcpy(out + at, in + at, bytes - at);
}

}  // namespace
}  // namespace baton::kvcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::kvcache {

HWY_EXPORT(copy_past_caches);

void copy_past_caches(const std::byte* from, std::byte* to, size_t bytes) {
  HWY_DYNAMIC_DISPATCH(copy_past_caches)(from, to, bytes);
}

}  // namespace baton::kvcache
#endif  // HWY_ONCE
