#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "tests/ops/roof.cc"
#include "hwy/foreach_target.h"  // must come before highway.h

#include "tests/ops/roof.h"
#include "tests/ops/roof_dot.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "common/device/cpu/cpu_device.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace baton::ops::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

float read_all(const float* p, size_t n) {
  const hn::ScalableTag<float> d;
  constexpr size_t kStep = 8;
  const size_t lanes = hn::Lanes(d);
  auto a = hn::Zero(d), b = a, c = a, e = a;
  for (size_t i = 0; i + kStep * lanes <= n; i += kStep * lanes) {
    a = hn::Max(a, hn::Max(hn::Load(d, p + i), hn::Load(d, p + i + lanes)));
    b = hn::Max(b, hn::Max(hn::Load(d, p + i + 2 * lanes), hn::Load(d, p + i + 3 * lanes)));
    c = hn::Max(c, hn::Max(hn::Load(d, p + i + 4 * lanes), hn::Load(d, p + i + 5 * lanes)));
    e = hn::Max(e, hn::Max(hn::Load(d, p + i + 6 * lanes), hn::Load(d, p + i + 7 * lanes)));
  }
  return hn::GetLane(hn::Max(hn::Max(a, b), hn::Max(c, e)));
}

// 12 chains of `n` FMAs, each with a start of its own (equal ones a compiler would fold into one);
// returns the FLOP done.
double fma_chains(size_t n, float* sink) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  constexpr size_t kChains = 12;
  const V x = hn::Set(d, 0.999f), y = hn::Set(d, 0.001f);
  V chain[kChains];
  HWY_UNROLL(12)
  for (size_t c = 0; c < kChains; ++c) chain[c] = hn::Set(d, *sink + static_cast<float>(c));
  for (size_t s = 0; s < n; ++s) {
    HWY_UNROLL(12)
    for (size_t c = 0; c < kChains; ++c) chain[c] = hn::MulAdd(chain[c], x, y);
  }
  HWY_UNROLL(12)
  for (size_t c = 1; c < kChains; ++c) chain[0] = hn::Add(chain[0], chain[c]);
  *sink = hn::GetLane(chain[0]);
  return 2.0 * kChains * static_cast<double>(n * hn::Lanes(d));
}

}  // namespace
}  // namespace baton::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace baton::ops {
namespace {

HWY_EXPORT(read_all);
HWY_EXPORT(fma_chains);

volatile float g_sink;  // keeps the compiler from dropping the work

template <class F>
double seconds_of(F&& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// Chains: does some `n` times, and returns the FLOP done.
double measure_gflops(unsigned threads, double (*chains)(size_t n, float* sink)) {
  device::ThreadPool pool(threads);
  std::vector<double> flop(threads);
  double best = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const double seconds = seconds_of([&] {
      pool.parallel_for(threads, [&](size_t i, unsigned) {
        float sink = g_sink;
        flop[i] = chains(20'000, &sink);
        g_sink = sink;
      });
    });
    best = std::max(best, flop[0] * threads / seconds / 1e9);
  }
  return best;
}

}  // namespace

double measure_read_gbps(unsigned threads) {
  constexpr size_t kFloats = size_t{64} << 20;  // 256 MB
  device::ThreadPool pool(threads);
  const device::Buffer buffer = device::allocate_host(kFloats * sizeof(float));
  float* data = reinterpret_cast<float*>(buffer.data());
  std::fill_n(data, kFloats, 1.0f);
  // The fastest pass over a 16th: short enough to fall between disturbances.
  double best = 1e9;
  const size_t part = kFloats / 16, slice = part / 16;
  for (size_t trial = 0; trial < 128; ++trial) {
    const float* begin = data + trial % 16 * part;
    best = std::min(best, seconds_of([&] {
                      pool.parallel_for(16, [&](size_t i, unsigned) {
                        g_sink = HWY_DYNAMIC_DISPATCH(read_all)(begin + i * slice, slice);
                      });
                    }));
  }
  return part * sizeof(float) / best / 1e9;
}

double measure_fma_gflops(unsigned threads) {
  return measure_gflops(threads, HWY_DYNAMIC_DISPATCH(fma_chains));
}

double measure_dot_gflops(unsigned threads) { return measure_gflops(threads, dot_chains); }

}  // namespace baton::ops
#endif  // HWY_ONCE
