#pragma once

#include "common/ops/ops.h"

namespace baton::ops {

// The CPU's table: fast, and the oracle for the others. Streams must be CpuStreams.
//
// Runs AVX-512 or AVX2 code, whichever the machine has; the environment variable BATON_MAX_ISA
// (avx2, avx3) caps it, with the same results. At start-up only: throws std::runtime_error if the
// variable is neither, or if the machine has no AVX2.
Ops cpu_ops();

}  // namespace baton::ops
