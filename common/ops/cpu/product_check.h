#pragma once

#include <functional>

#include "common/base/result.h"
#include "common/ops/ops.h"

// What a foreign matrix kernel must do before it is believed, whatever its name promises.
namespace baton::ops {

// out [m, n] = x [m, k] times some weights; f32. m is at most 64.
using Product = std::function<void(const Tensor& x, const Tensor& out)>;
// For these weights (bf16, [n, k], gone after the call), laid out as for so many threads.
using MakeProduct = std::function<result<Product>(const Tensor& weights, unsigned threads)>;

// Multiplies random bf16 numbers of two shapes. kUnsupported, with what is wrong, if
//   - a row has other bits beside other rows, or in another layout, than it has alone, or
//   - an output is further from the true sum than a chain of f32 additions may be.
// Some 20 ms for a fast kernel. Errors of `make` are passed on.
status check_products(const MakeProduct& make);

}  // namespace baton::ops
