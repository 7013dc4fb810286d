#pragma once

#include <string>
#include <string_view>

#include "common/ops/ops.h"

namespace baton::ops {

// The CPU's table: fast, and the oracle for the others. Streams must be CpuStreams.
//
// Runs AVX-512 or AVX2 code, whichever the machine has, with the same results. With AVX512_BF16
// weights and caches of bf16 are multiplied by other kernels, in a numerics of its own. The
// environment variable BATON_MAX_ISA caps all this: avx2, or avx3 (AVX-512 without BF16). At
// start-up only: throws std::runtime_error if the variable is neither, or if the machine has no
// AVX2.
Ops cpu_ops();

// What multiplies bf16 with bf16.
struct Bf16Products {
  bool dot = false;    // VDPBF16PS (dot_kernel.h); if not, bf16 is widened to f32
  std::string onednn;  // the kernel of oneDNN's that multiplies weights instead, if not empty
};

// Of this machine: the best that it has, and that the cap leaves. Where that is oneDNN's, computes
// some products to check it, and warns of a kernel that fails.
Bf16Products bf16_products(std::string_view isa_cap);

// The fingerprint of the operations with them.
std::string cpu_numerics(const Bf16Products& products);

}  // namespace baton::ops
