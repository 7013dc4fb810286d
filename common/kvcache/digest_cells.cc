#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/kvcache/digest_cells.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "common/kvcache/digest_cells.h"

#ifndef XXH_INLINE_ALL
#define XXH_INLINE_ALL  // a call for each vector would cost as much as the hash
#endif
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "common/kvcache/digest_place.h"
#include "hwy/cache_control.h"
#include "hwy/highway.h"

// XXH3 of many parts of 128 bytes side by side. Of such a part each word of 16 bytes is mixed with
// a part of the secret by one multiplication of 64 bits, and the sum of the mixes is finished
// (Collet, doc/xxhash_spec.md of xxHash): a part's words are mixed in one vector's lanes, the sums
// of as many parts as there are lanes are brought into a lane each, and finished together.
HWY_BEFORE_NAMESPACE();
namespace baton::kvcache::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using U64 = hn::ScalableTag<uint64_t>;
using U32 = hn::Repartition<uint32_t, U64>;
using Vec = hn::Vec<U64>;
constexpr size_t kLanes = HWY_MAX_BYTES / sizeof(uint64_t);
constexpr size_t kPairs = kDigestPartBytes / HWY_MAX_BYTES / 2;  // of vectors, that make up a part
static_assert(kPairs > 0 && (kLanes & (kLanes - 1)) == 0);

// What is so far ahead is on its way from memory: less than half of an L1 cache.
constexpr size_t kAheadBytes = 12u << 10;

// What becomes of the bytes.
enum class Copy { kNo, kYes, kPastCaches };

// The default secret, word by word in the order in which a part's words are mixed with it: from
// both ends inwards.
constexpr uint64_t kSecret[8][2] = {
    {0xbe4ba423396cfeb8, 0x1cad21f72c81017c}, {0x78e5c0cc4ee679cb, 0x2172ffcc7dd05a82},
    {0xcb00c391bb52283c, 0xa32e531b8b65d088}, {0x3f349ce33f76faa8, 0x1d4f0bc7c7bbdcf9},
    {0x3159b4cd4be0518a, 0x647378d9c97e9fc8}, {0x4ef90da297486471, 0xd8acdea946ef1938},
    {0x8e2443f7744608b8, 0x4c263a81e69035e0}, {0xdb979083e96dd4de, 0x1f67b3b7a4a44072}};

// Of each pair of vectors, as InterleaveLower and Upper bring its words into lanes.
struct Secrets {
  Vec low[kPairs], high[kPairs];
};
HWY_INLINE Secrets load_secrets() {
  const U64 d;
  Secrets secrets;
  for (size_t pair = 0; pair < kPairs; ++pair) {
    alignas(64) uint64_t low[kLanes], high[kLanes];
    for (size_t lane = 0; lane < kLanes; ++lane) {
      const size_t word = pair * kLanes + lane % 2 * (kLanes / 2) + lane / 2;
      low[lane] = kSecret[word][0];
      high[lane] = kSecret[word][1];
    }
    secrets.low[pair] = hn::Load(d, low);
    secrets.high[pair] = hn::Load(d, high);
  }
  return secrets;
}

HWY_INLINE Vec swap_halves(Vec v) {
  return hn::BitCast(U64(), hn::Shuffle2301(hn::BitCast(U32(), v)));
}

// The halves of the 128 bits of x * y, folded.
HWY_INLINE Vec multiply_fold(Vec x, Vec y) {
  const U64 d;
  const U32 d32;
  const auto multiply = [d32](Vec a, Vec b) HWY_ATTR {  // the low halves of the lanes
    return hn::MulEven(hn::BitCast(d32, a), hn::BitCast(d32, b));
  };
  const Vec x1 = swap_halves(x), y1 = swap_halves(y);
  const Vec ll = multiply(x, y), hl = multiply(x1, y);
  const Vec lh = multiply(x, y1), hh = multiply(x1, y1);
  const Vec cross =
      hn::Add(hn::Add(hn::ShiftRight<32>(ll), hn::And(hl, hn::Set(d, 0xffffffffu))), lh);
  const Vec upper = hn::Add(hn::Add(hn::ShiftRight<32>(hl), hn::ShiftRight<32>(cross)), hh);
  const auto lower = hn::OddEven(hn::BitCast(d32, swap_halves(cross)), hn::BitCast(d32, ll));
  return hn::Xor(upper, hn::BitCast(d, lower));
}

// What is hashed must be what is stored: without this the compiler might load it twice.
HWY_INLINE void pin(Vec& v) {
#if HWY_ARCH_X86
  asm volatile("" : "+v"(v.raw));
#else
  asm volatile("" : "+m"(v));
#endif
}

// A place `n` bytes behind another; nowhere if nothing is copied.
template <Copy kCopy>
HWY_INLINE std::byte* behind(std::byte* to, size_t n) {
  return kCopy == Copy::kNo ? nullptr : to + n;
}

template <Copy kCopy>
HWY_INLINE Vec take(const std::byte* from, std::byte* to) {
  const U64 d;
  Vec v = hn::LoadU(d, reinterpret_cast<const uint64_t*>(from));
  if constexpr (kCopy != Copy::kNo) {
    pin(v);
    auto* out = reinterpret_cast<uint64_t*>(to);
    kCopy == Copy::kPastCaches ? hn::Stream(v, d, out) : hn::StoreU(v, d, out);
  }
  return v;
}

// The mixes of a part's words: sums of some of them in each lane.
template <Copy kCopy>
HWY_INLINE Vec mix_part(const std::byte* from, std::byte* to, uint64_t seed,
                        const Secrets& secrets) {
  const U64 d;
  const Vec seeds = hn::Set(d, seed);
  Vec sum = hn::Zero(d);
  for (size_t pair = 0; pair < kPairs; ++pair) {
    const size_t at = pair * 2 * HWY_MAX_BYTES;
    const Vec a = take<kCopy>(from + at, behind<kCopy>(to, at));
    const Vec b = take<kCopy>(from + at + HWY_MAX_BYTES, behind<kCopy>(to, at + HWY_MAX_BYTES));
    const Vec low = hn::Xor(hn::InterleaveLower(d, a, b), hn::Add(secrets.low[pair], seeds));
    const Vec high = hn::Xor(hn::InterleaveUpper(d, a, b), hn::Sub(secrets.high[pair], seeds));
    sum = hn::Add(sum, multiply_fold(low, high));
  }
  return sum;
}

// The same of `kParts` parts, `stride` bytes apart, of a seed each; each part's sums are in
// kLanes / kParts lanes, in order. By recursion, for as few registers as it takes.
template <Copy kCopy, size_t kParts>
HWY_INLINE Vec mix_parts(const std::byte* from, std::byte* to, size_t stride, const uint64_t* seeds,
                         const Secrets& secrets) {
  if constexpr (kParts == 1) {
    return mix_part<kCopy>(from, to, *seeds, secrets);
  } else {
    const U64 d;
    constexpr size_t kHalf = kParts / 2;
    const size_t half = kHalf * stride;
    const Vec a = mix_parts<kCopy, kHalf>(from, to, stride, seeds, secrets);
    const Vec b = mix_parts<kCopy, kHalf>(from + half, behind<kCopy>(to, half), stride,
                                          seeds + kHalf, secrets);
    return hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
  }
}

// Of the sum of a part's mixes, its hash.
HWY_INLINE Vec finish(Vec sums) {
  const U64 d;
  Vec h = hn::Add(sums, hn::Set(d, kDigestPartBytes * 0x9e3779b185ebca87u));
  h = hn::Xor(h, hn::ShiftRight<37>(h));
  h = hn::Mul(h, hn::Set(d, 0x165667919e3779f9u));
  return hn::Xor(h, hn::ShiftRight<32>(h));
}

// digest_place.h's place_seed of kLanes positions.
HWY_INLINE Vec place_seeds(uint64_t place) {
  const U64 d;
  Vec x = hn::Add(hn::Set(d, place), hn::Iota(d, 0));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<30>(x)), hn::Set(d, kPlaceFactor1));
  x = hn::Mul(hn::Xor(x, hn::ShiftRight<27>(x)), hn::Set(d, kPlaceFactor2));
  return hn::Xor(x, hn::ShiftRight<31>(x));
}

// A vector's part from `at` on, one after the other: what makes up no group, or no part.
template <Copy kCopy>
uint64_t digest_vector(const std::byte* from, std::byte* to, size_t at, size_t vector_bytes,
                       uint64_t seed) {
  uint64_t sum = 0;
  if (kCopy != Copy::kNo) {
    std::memcpy(to + at, from + at, vector_bytes - at);
    asm volatile("" ::: "memory");  // as pin()
    from = to;
  }
  for (; at < vector_bytes; at += kDigestPartBytes) {
    sum +=
        XXH3_64bits_withSeed(from + at, std::min(kDigestPartBytes, vector_bytes - at), seed + at);
  }
  return sum;
}

// All cells of a layout, one after the other.
template <Copy kCopy>
class Cells {
 public:
  Cells(const KvLayout& layout, std::span<const DigestCell> cells)
      : layout_(layout),
        cells_(cells),
        vector_bytes_(layout.vector_bytes()),
        whole_(vector_bytes_ / kDigestPartBytes * kDigestPartBytes),
        ahead_(std::min(kAheadBytes, layout.layer_bytes())) {}

  HWY_ATTR uint64_t digest() {
    const Secrets secrets = load_secrets();
    Vec sums = hn::Zero(U64());
    uint64_t sum = 0;
    for (size_t i = 0; i < cells_.size(); ++i) {
      const DigestCell& cell = cells_[i];
      next_ = i + 1 < cells_.size() ? cells_[i + 1].from : cell.from;
      for (uint32_t plane = 0; plane < layout_.num_planes(); ++plane) {
        for (uint32_t head = 0; head < layout_.num_heads(); ++head) {
          const uint64_t place =
              place_bits(cell.layer, plane, layout_.head_begin + head, cell.position);
          const size_t at = plane * layout_.plane_bytes() + head * layout_.head_bytes();
          sums = hn::Add(sums, groups(cell, at, place, secrets));
          sum += rest(cell, at, place);
        }
      }
    }
    alignas(64) uint64_t lanes[kLanes];
    hn::Store(sums, U64(), lanes);
    return std::accumulate(lanes, lanes + kLanes, sum);
  }

 private:
  // The whole parts of as many times kLanes tokens as there are, of the head that lies at `at`.
  HWY_INLINE Vec groups(const DigestCell& cell, size_t at, uint64_t place,
                        const Secrets& secrets) const {
    const U64 d;
    Vec sums = hn::Zero(d);
    alignas(64) uint64_t seeds[kLanes];
    for (uint32_t token = 0; token + kLanes <= cell.num_tokens; token += kLanes) {
      const size_t group = at + token * vector_bytes_;
      if (kCopy != Copy::kNo) fetch(cell, group);
      const Vec first_seeds = place_seeds(place + token);
      for (size_t part = 0; part < whole_; part += kDigestPartBytes) {
        hn::Store(hn::Add(first_seeds, hn::Set(d, part)), d, seeds);
        sums = hn::Add(sums, finish(mix_parts<kCopy, kLanes>(cell.from + group + part,
                                                             behind<kCopy>(cell.to, group + part),
                                                             vector_bytes_, seeds, secrets)));
      }
    }
    return sums;
  }

  HWY_INLINE uint64_t rest(const DigestCell& cell, size_t at, uint64_t place) const {
    const auto grouped = static_cast<uint32_t>(cell.num_tokens / kLanes * kLanes);
    uint64_t sum = 0;
    for (uint32_t token = whole_ == vector_bytes_ ? grouped : 0; token < cell.num_tokens; ++token) {
      const size_t vector = at + token * vector_bytes_;
      sum += digest_vector<kCopy>(cell.from + vector, behind<kCopy>(cell.to, vector),
                                  token < grouped ? whole_ : 0, vector_bytes_,
                                  place_seed(place + token));
    }
    return sum;
  }

  // Asks for what is read ahead_ bytes after the group at `at`, in this cell or the next: once, as
  // what is copied is not read here again.
  HWY_INLINE void fetch(const DigestCell& cell, size_t at) const {
    const size_t cell_bytes = layout_.layer_bytes();
    const std::byte* ahead =
        at + ahead_ < cell_bytes ? cell.from + at + ahead_ : next_ + (at + ahead_ - cell_bytes);
    for (size_t line = 0; line < kLanes * vector_bytes_; line += 64) {
      __builtin_prefetch(ahead + line, 0, 0);
    }
  }

  const KvLayout& layout_;
  const std::span<const DigestCell> cells_;
  const size_t vector_bytes_, whole_, ahead_;
  const std::byte* next_ = nullptr;  // the next cell's
};

uint64_t digest_cells(const KvLayout& layout, std::span<const DigestCell> cells) {
  return Cells<Copy::kNo>(layout, cells).digest();
}

uint64_t copy_digest_cells(const KvLayout& layout, std::span<const DigestCell> cells) {
  const bool aligned = std::ranges::all_of(cells, [&](const DigestCell& cell) {
    return (reinterpret_cast<uintptr_t>(cell.to) | layout.vector_bytes()) % HWY_MAX_BYTES == 0;
  });
  if (!aligned) return Cells<Copy::kYes>(layout, cells).digest();
  const uint64_t sum = Cells<Copy::kPastCaches>(layout, cells).digest();
  hwy::FlushStream();  // before anybody is told that it is there
  return sum;
}

}  // namespace
}  // namespace baton::kvcache::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::kvcache {

HWY_EXPORT(digest_cells);
HWY_EXPORT(copy_digest_cells);

uint64_t digest_cells(const KvLayout& layout, std::span<const DigestCell> cells) {
  return HWY_DYNAMIC_DISPATCH(digest_cells)(layout, cells);
}

uint64_t copy_digest_cells(const KvLayout& layout, std::span<const DigestCell> cells) {
  return HWY_DYNAMIC_DISPATCH(copy_digest_cells)(layout, cells);
}

}  // namespace baton::kvcache
#endif  // HWY_ONCE
