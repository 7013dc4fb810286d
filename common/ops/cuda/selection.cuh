#pragma once

#include "common/ops/cuda/vocab_row.cuh"

// Finds the token of a rank, or the one at which the likeliest tokens' masses first reach a sum,
// without sorting the vocabulary: only a window of the order is gathered and sorted. Counts and
// masses are integers, so nothing depends on the order in which threads come.
namespace baton::ops {

inline constexpr uint32_t kWindow = 2048;  // keys gathered at most: two a thread
inline constexpr uint32_t kDigitBits = 11;
inline constexpr uint32_t kBins = 1u << kDigitBits;
static_assert(kWindow == 2 * kRowThreads && kBins == 2 * kRowThreads);

// What a block's selections work in.
struct SelectionMemory {
  uint64_t keys[kWindow];  // the window, descending
  union {
    uint64_t upto[kWindow];  // mass of the window's keys up to and with each
    struct {
      uint32_t low[kBins], high[kBins];  // halves of a bin's mass
    } mass;
  };
  uint32_t count[kBins];
  uint64_t of_warp[32];
  float float_of_warp[32];
  uint32_t filled;  // how many keys the window was offered
  struct {
    uint32_t bin, bin_count, count_above;
    uint64_t mass_above;
  } digit;
  struct {
    uint64_t key, mass;
  } found;
};

// The keys of logits as they are: for lists of the likeliest. They have no mass.
struct LogitKeys {
  static constexpr uint32_t kBits = 64;
  static constexpr bool kHaveMass = false;
  uint32_t vocab;

  __device__ uint64_t operator()(float v, uint32_t id) const {
    return id < vocab ? logit_key(v, id) : 0;
  }
  __device__ static uint64_t mass(uint64_t) { return 0; }
};

// The keys of weights e^((x - max) * scale), those from `floor` on; 0 for what is below. The mass
// is the weight in whole units of 2^-44.
struct WeightKeys {
  static constexpr uint32_t kBits = 62;  // a weight is at most 1: 0x3f800000
  static constexpr bool kHaveMass = true;
  static constexpr float kSmallest = 0x1p-44f;
  float max, scale, floor;  // floor is at least kSmallest

  __device__ uint64_t operator()(float v, uint32_t id) const {
    float w = expf(__fmul_rn(__fsub_rn(v, max), scale));
    w = w > 1.0f ? 1.0f : w;
    return w >= floor ? make_key(__float_as_uint(w), id) : 0;
  }
  __device__ static uint64_t mass(uint64_t key) {
    const auto bits = static_cast<uint32_t>(key >> 32);
    const uint64_t mantissa = (bits & 0x7fffffu) | 0x800000u;  // times 2^(exponent - 127 - 23)
    return mantissa << 23 >> (129 - (bits >> 23));
  }
};

// The sum of what lower threads have, and of all.
__device__ __forceinline__ uint64_t block_scan(uint64_t v, uint64_t* shared, uint64_t& total) {
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint64_t upto = v;
#pragma unroll
  for (uint32_t step = 1; step < 32; step *= 2) {
    const uint64_t below = __shfl_up_sync(kAllLanes, upto, step);
    if (lane >= step) upto += below;
  }
  if (lane == 31) shared[warp] = upto;
  __syncthreads();
  uint64_t of_warps = shared[lane];
#pragma unroll
  for (uint32_t step = 1; step < 32; step *= 2) {
    const uint64_t below = __shfl_up_sync(kAllLanes, of_warps, step);
    if (lane >= step) of_warps += below;
  }
  total = __shfl_sync(kAllLanes, of_warps, 31);
  const uint64_t before = __shfl_sync(kAllLanes, of_warps, warp == 0 ? 0 : warp - 1);
  __syncthreads();
  return upto - v + (warp == 0 ? 0 : before);
}

// All methods are for the whole block together, and every thread gets the same answer.
template <class Keys>
class Selection {
 public:
  struct Found {
    uint64_t key;
    uint64_t mass;  // of all keys up to and with this one
  };

  __device__ Selection(const float* x, uint32_t vocab, const Keys& keys, SelectionMemory& memory)
      : x_(x), vocab_(vocab), keys_(keys), m_(memory) {}

  // Counts all keys and their mass. On the way the window takes those of `from` and greater.
  __device__ void survey(uint64_t from, uint32_t& count, uint64_t& mass) {
    start_window();
    uint64_t of_count = 0, of_mass = 0;
    for_each_logit(x_, vocab_, [&](float v, uint32_t id) {
      const uint64_t key = keys_(v, id);
      if (key != 0) {
        of_count += 1;
        of_mass += Keys::mass(key);
      }
      offer(key, key != 0 && key >= from);
    });
    __syncthreads();
    finish_window();
    count = static_cast<uint32_t>(block_sum(of_count, m_.of_warp));
    mass = block_sum(of_mass, m_.of_warp);
  }

  // The key of this rank, from 1; there are so many keys.
  __device__ Found at_rank(uint32_t rank) {
    if (rank <= count_above_ || rank > count_above_ + size_) open_window<false>(rank);
    const uint32_t i = rank - count_above_ - 1;
    return {m_.keys[i], Keys::kHaveMass ? mass_above_ + m_.upto[i] : 0};
  }

  // The first key with which the mass reaches `mass`, at least 1; there is so much.
  __device__ Found at_mass(uint64_t mass) {
    if (mass <= mass_above_ || mass > mass_above_ + window_mass_) open_window<true>(mass);
    const uint64_t wanted = mass - mass_above_;
#pragma unroll
    for (uint32_t i = 2 * threadIdx.x; i < 2 * threadIdx.x + 2; ++i) {
      const uint64_t before = i == 0 ? 0 : m_.upto[i - 1];
      if (before < wanted && wanted <= m_.upto[i]) {
        m_.found.key = m_.keys[i];
        m_.found.mass = mass_above_ + m_.upto[i];
      }
    }
    __syncthreads();
    const Found found = {m_.found.key, m_.found.mass};
    __syncthreads();
    return found;
  }

  // The `n` greatest keys: valid after at_rank(n) of n up to kMaxTopLogprobs.
  __device__ uint64_t top(uint32_t i) const { return m_.keys[i]; }

 private:
  static constexpr uint32_t kRoom = 32;  // for what stands above a bin
  static_assert(kMaxTopLogprobs <= kRoom);

  // Opens the window at the key sought: by the digits of the keys, the highest first, until few
  // enough share those known. A digit costs a pass over the row.
  template <bool kByMass>
  __device__ void open_window(uint64_t goal) {
    uint64_t low = 0, high = ~uint64_t{0}, bin_count = 0;
    count_above_ = 0;
    mass_above_ = 0;
    uint32_t shift = Keys::kBits;
    __syncthreads();  // nobody reads the window any more
    do {
      shift = shift > kDigitBits ? shift - kDigitBits : 0;
      count_digits(low, high, shift);
      find_bin<kByMass>(goal - (kByMass ? mass_above_ : count_above_));
      low += uint64_t{m_.digit.bin} << shift;
      high = low + (uint64_t{1} << shift) - 1;
      count_above_ += m_.digit.count_above;
      mass_above_ += m_.digit.mass_above;
      bin_count = m_.digit.bin_count;
    } while (bin_count > kWindow - kRoom);
    if (count_above_ + bin_count <= kWindow) {  // then all from the greatest on
      high = ~uint64_t{0};
      count_above_ = 0;
      mass_above_ = 0;
    }
    start_window();
    for_each_logit(x_, vocab_, [&](float v, uint32_t id) {
      const uint64_t key = keys_(v, id);
      offer(key, key != 0 && key >= low && key <= high);
    });
    __syncthreads();
    finish_window();
  }

  // How many keys of [low, high], and what mass, there are for each digit at `shift`.
  __device__ void count_digits(uint64_t low, uint64_t high, uint32_t shift) {
    for (uint32_t i = threadIdx.x; i < kBins; i += kRowThreads) {
      m_.count[i] = m_.mass.low[i] = m_.mass.high[i] = 0;
    }
    __syncthreads();
    for_each_logit(x_, vocab_, [&](float v, uint32_t id) {
      const uint64_t key = keys_(v, id);
      if (key == 0 || key < low || key > high) return;
      const auto bin = static_cast<uint32_t>((key - low) >> shift);
      atomicAdd(&m_.count[bin], 1u);
      if constexpr (Keys::kHaveMass) add_mass(bin, Keys::mass(key));
    });
    __syncthreads();
  }

  // 64 bits by halves: shared memory adds 32 at once, and 64 only by trying again and again.
  __device__ void add_mass(uint32_t bin, uint64_t mass) {
    const auto low = static_cast<uint32_t>(mass);
    const uint32_t before = atomicAdd(&m_.mass.low[bin], low);
    const uint32_t high = static_cast<uint32_t>(mass >> 32) + (before + low < before ? 1 : 0);
    if (high != 0) atomicAdd(&m_.mass.high[bin], high);
  }
  __device__ uint64_t mass_of_bin(uint32_t bin) const {
    return uint64_t{m_.mass.high[bin]} << 32 | m_.mass.low[bin];
  }

  // The bin, from the greatest down, with which `goal` is reached: sets m_.digit.
  template <bool kByMass>
  __device__ void find_bin(uint64_t goal) {
    const uint32_t first = kBins - 1 - 2 * threadIdx.x;  // and the one below
    uint64_t count[2], mass[2], unused;
    for (uint32_t i = 0; i < 2; ++i) {
      count[i] = m_.count[first - i];
      mass[i] = Keys::kHaveMass ? mass_of_bin(first - i) : 0;
    }
    uint64_t count_above = block_scan(count[0] + count[1], m_.of_warp, unused);
    uint64_t mass_above = Keys::kHaveMass ? block_scan(mass[0] + mass[1], m_.of_warp, unused) : 0;
    for (uint32_t i = 0; i < 2; ++i) {
      const uint64_t before = kByMass ? mass_above : count_above;
      const uint64_t own = kByMass ? mass[i] : count[i];
      if (before < goal && goal <= before + own) {
        m_.digit.bin = first - i;
        m_.digit.bin_count = static_cast<uint32_t>(count[i]);
        m_.digit.count_above = static_cast<uint32_t>(count_above);
        m_.digit.mass_above = mass_above;
      }
      count_above += count[i];
      mass_above += mass[i];
    }
    __syncthreads();
  }

  __device__ void start_window() {
    if (threadIdx.x == 0) m_.filled = 0;
    __syncthreads();
  }

  // Whole warps call this together.
  __device__ void offer(uint64_t key, bool take) {
    const uint32_t takers = __ballot_sync(kAllLanes, take);
    if (takers == 0) return;
    const uint32_t lane = threadIdx.x % 32;
    uint32_t at = 0;
    if (lane == 0) at = atomicAdd(&m_.filled, static_cast<uint32_t>(__popc(takers)));
    at = __shfl_sync(kAllLanes, at, 0) + __popc(takers & ((1u << lane) - 1));
    if (take && at < kWindow) m_.keys[at] = key;
  }

  // Sorts the window and sums its masses. One that was offered too much is empty.
  __device__ void finish_window() {
    size_ = m_.filled <= kWindow ? m_.filled : 0;
    uint32_t padded = 2;
    while (padded < size_) padded *= 2;
    for (uint32_t i = size_ + threadIdx.x; i < padded; i += kRowThreads) m_.keys[i] = 0;
    __syncthreads();
    sort_window(padded);
    window_mass_ = 0;
    if constexpr (Keys::kHaveMass) {
      const uint32_t i = 2 * threadIdx.x;
      const uint64_t a = i < size_ ? Keys::mass(m_.keys[i]) : 0;
      const uint64_t b = i + 1 < size_ ? Keys::mass(m_.keys[i + 1]) : 0;
      const uint64_t before = block_scan(a + b, m_.of_warp, window_mass_);
      m_.upto[i] = before + a;
      m_.upto[i + 1] = before + a + b;
      __syncthreads();
    }
  }

  // Bitonic (Batcher 1968), descending; `n` is a power of two.
  __device__ void sort_window(uint32_t n) {
    for (uint32_t size = 2; size <= n; size *= 2) {
      for (uint32_t stride = size / 2; stride > 0; stride /= 2) {
        if (threadIdx.x < n / 2) {
          const uint32_t i = 2 * threadIdx.x - (threadIdx.x & (stride - 1)), j = i + stride;
          const uint64_t a = m_.keys[i], b = m_.keys[j];
          const bool descending = (i & size) == 0;
          if ((a < b) == descending) {
            m_.keys[i] = b;
            m_.keys[j] = a;
          }
        }
        __syncthreads();
      }
    }
  }

  const float* x_;  // [vocab]
  uint32_t vocab_;
  Keys keys_;
  SelectionMemory& m_;
  uint32_t size_ = 0;         // of the window
  uint32_t count_above_ = 0;  // keys greater than the window's
  uint64_t mass_above_ = 0;
  uint64_t window_mass_ = 0;
};

}  // namespace baton::ops
