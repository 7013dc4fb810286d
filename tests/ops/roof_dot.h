#pragma once

#include <cstddef>

namespace baton::ops {

// 24 chains of `n` VDPBF16PS, from a start of their own each; returns the FLOP done.
double dot_chains(size_t n, float* sink);

}  // namespace baton::ops
