#pragma once

#include <string>
#include <string_view>

#include "common/ops/ops.h"

namespace baton::ops {

// The CPU's table: fast, and the oracle for the others. Streams must be CpuStreams.
//
// Runs AVX-512 or AVX2 code, whichever the machine has, with the same results. Where oneDNN has an
// invariant bf16 kernel (AVX512_BF16, AMX) that passes its check, products with bf16 weights are
// its, in a numerics of its own. The environment variable BATON_MAX_ISA caps all this: avx2, or
// avx3 (AVX-512 without BF16). At start-up only: throws std::runtime_error if the variable is
// neither, or if the machine has no AVX2.
Ops cpu_ops();

// The kernel of oneDNN's that multiplies bf16 weights; empty: our own does. Computes some products
// to find out, and warns of a kernel that fails.
std::string onednn_in_use(std::string_view isa_cap);

// The fingerprint of the operations with that kernel.
std::string cpu_numerics(std::string_view onednn_kernel);

}  // namespace baton::ops
