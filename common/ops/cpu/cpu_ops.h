#pragma once

#include <string_view>

#include "common/ops/ops.h"

namespace baton::ops {

// The CPU's table: fast, and the oracle for the others. Streams must be CpuStreams.
//
// Runs AVX-512 or AVX2 code, whichever the machine has, with the same results. Where oneDNN has an
// invariant bf16 kernel (AVX512_BF16), products with bf16 weights are its, in a numerics of its
// own. The environment variable BATON_MAX_ISA caps all this: avx2, or avx3 (AVX-512 without BF16).
// At start-up only: throws std::runtime_error if the variable is neither, or if the machine has no
// AVX2.
Ops cpu_ops();

// The choice of the kernel for bf16 weights: oneDNN's, or our own.
bool use_onednn(std::string_view isa_cap);

}  // namespace baton::ops
