#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

// Products of bf16 numbers by AVX512_BF16's VDPBF16PS: twice the arithmetic of f32. Each of its
// lanes adds the products of two neighbours in k to an f32.
//
// An output is ONE chain of these over the pairs of k, first to last, from 0: the same for any
// number of rows. The instruction rounds to nearest even and takes denormals for zero, whatever the
// thread's mode; in which order it adds its two products is the processor's (dot_rounding()).
namespace baton::ops {

// Whether this processor and system have it. The rest may be called only then.
bool has_bf16_dot();

// Eight hex digits that tell apart processors whose VDPBF16PS gives other bits.
std::string dot_rounding();

inline constexpr size_t kDotRows = 8;
inline constexpr size_t kDotColumns = 32;

// out[r][c] = sum over k of a[r][k] * b[k][c] (+ bias[c]) (+ out[r][c]). Or, to go on with what a
// call for the k before has left: out[r][c] is where its chain begins.
struct DotArgs {
  const uint16_t* a;            // row after row, each from an even k on
  size_t a_stride;              // elements from row to row, even
  const uint16_t* b;            // panels of 32 columns, each [pairs][32][2], 64-byte aligned
  size_t b_stride = 0;          // elements from panel to panel
  size_t pairs = 0;             // of k
  float* const* out = nullptr;  // one pointer a row
  size_t column = 0;            // of out and bias, where the first panel begins
  size_t columns = kDotColumns;
  const float* bias = nullptr;  // of column 0, or null
  bool accumulate = false;
  bool go_on = false;
  // Brought into L2 meanwhile, if not null, so many bytes for each pair.
  const std::byte* ahead = nullptr;
  size_t ahead_step = 0;
};

// 1 <= rows <= kDotRows.
void dot_rows(const DotArgs& args, size_t rows);

// to[0..n) = from[0..n), to nearest even; denormals become 0. to[n] = 0 if n is odd.
void round_to_bf16(const float* from, size_t n, uint16_t* to);

}  // namespace baton::ops
