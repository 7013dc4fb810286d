#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "common/ops/cpu/rope.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include <cmath>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/paged_kv.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

constexpr uint32_t kMaxHeadDim = 512;

// out = x / rms(x) * weight for one head; x unchanged where weight is null.
HWY_INLINE const float* norm_head(const float* HWY_RESTRICT x, const float* HWY_RESTRICT weight,
                                  float eps, uint32_t head_dim, float* HWY_RESTRICT buffer) {
  if (weight == nullptr) return x;
  const float mean = sum_of_squares(x, head_dim) / static_cast<float>(head_dim);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (uint32_t i = 0; i < head_dim; ++i) buffer[i] = x[i] * scale * weight[i];
  return buffer;
}

// out[i], out[i + d/2] = x rotated by the angle of pair i. Eight pairs at a time, whatever the
// vector width: head_dim is a multiple of 16.
HWY_INLINE void rotate(const float* HWY_RESTRICT x, const float* HWY_RESTRICT cos,
                       const float* HWY_RESTRICT sin, uint32_t head_dim, float* HWY_RESTRICT out) {
  const uint32_t half = head_dim / 2;
  const hn::CappedTag<float, 8> d;
  for (uint32_t i = 0; i < half; i += hn::Lanes(d)) {
    const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + half + i);
    const auto c = hn::LoadU(d, cos + i), s = hn::LoadU(d, sin + i);
    hn::StoreU(hn::NegMulAdd(b, s, hn::Mul(a, c)), d, out + i);
    hn::StoreU(hn::MulAdd(a, s, hn::Mul(b, c)), d, out + half + i);
  }
}

// Writes a head's vector into the cache, rounded to T.
template <class T>
HWY_INLINE void store_head(const float* HWY_RESTRICT x, uint32_t head_dim, std::byte* out) {
  T* to = reinterpret_cast<T*>(out);
  for (uint32_t i = 0; i < head_dim; i += kLanes) store_f32(hn::LoadU(F32(), x + i), to + i);
}

template <class T>
void rope_row(const RopeKvArgs& args, const SequenceRows& seq, uint32_t index) {
  const uint32_t d = args.kv.head_dim, heads = args.num_heads, kv_heads = args.kv.num_kv_heads;
  const uint32_t row = seq.first_row + index, position = seq.position + index;
  const float* x = args.qkv.row<float>(row);
  const float* cos = args.cos.row<float>(row);
  const float* sin = args.sin.row<float>(row);
  float* q_out = args.q_out.row<float>(row);
  alignas(64) float normed[kMaxHeadDim], rotated[kMaxHeadDim];
  for (uint32_t h = 0; h < heads; ++h) {
    const float* q = norm_head(x + h * d, args.q_norm, args.norm_eps, d, normed);
    rotate(q, cos, sin, d, q_out + h * d);
  }
  const float* keys = x + size_t{heads} * d;
  const float* values = keys + size_t{kv_heads} * d;
  for (uint32_t h = 0; h < kv_heads; ++h) {
    const float* k = norm_head(keys + h * d, args.k_norm, args.norm_eps, d, normed);
    rotate(k, cos, sin, d, rotated);
    store_head<T>(rotated, d, kv_vector(args.kv, seq, kKeyPlane, h, position));
    store_head<T>(values + h * d, d, kv_vector(args.kv, seq, kValuePlane, h, position));
  }
}

void rope_rows(const RopeKvArgs& args, const SequenceRows& seq, uint32_t begin, uint32_t end) {
  assert(args.kv.head_dim % 16 == 0 && args.kv.head_dim <= kMaxHeadDim);
  for (uint32_t i = begin; i < end; ++i) {
    if (args.kv.dtype == DType::kBF16) {
      rope_row<uint16_t>(args, seq, i);
    } else {
      rope_row<float>(args, seq, i);
    }
  }
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {

HWY_EXPORT(rope_rows);

void cpu_rope_angles(Stream& stream, std::span<const uint32_t> positions,
                     std::span<const float> inv_freq, const Tensor& cos, const Tensor& sin) {
  const auto rows = static_cast<int64_t>(positions.size());
  assert(cos.rows == rows && cos.cols == static_cast<int64_t>(inv_freq.size()));
  // std::cos costs as much as some twenty elements of anything else.
  const int64_t cost = cos.cols * 20;
  parallel_rows(stream, rows, cost, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      for (size_t i = 0; i < inv_freq.size(); ++i) {
        const double angle = static_cast<double>(positions[r]) * inv_freq[i];
        cos.row<float>(r)[i] = static_cast<float>(std::cos(angle));
        sin.row<float>(r)[i] = static_cast<float>(std::sin(angle));
      }
    }
  });
}

void cpu_rope_and_write_kv(Stream& stream, const RopeKvArgs& args) {
  const auto run = HWY_DYNAMIC_DISPATCH(rope_rows);
  const int64_t total = args.qkv.rows;
  // Slices of the batch's rows; a slice visits each sequence's part of it.
  parallel_rows(stream, total, args.qkv.cols, [&](int64_t begin, int64_t end) {
    for (const SequenceRows& seq : args.sequences.host) {
      const int64_t first = std::max<int64_t>(begin, seq.first_row);
      const int64_t last = std::min<int64_t>(end, int64_t{seq.first_row} + seq.num_rows);
      if (first < last) {
        run(args, seq, static_cast<uint32_t>(first - seq.first_row),
            static_cast<uint32_t>(last - seq.first_row));
      }
    }
  });
}

}  // namespace baton::ops
#endif  // HWY_ONCE
