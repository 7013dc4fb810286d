#pragma once

#include <cstddef>

// What this machine can do at most, measured by programs that do nothing else, so that a benchmark
// can stand beside its roof from the same run.
namespace baton::ops {

// GB/s of reading memory that no cache holds, on so many threads.
double measure_read_gbps(unsigned threads);
// GFLOP/s of independent f32 fused multiply-adds in registers, on so many threads.
double measure_fma_gflops(unsigned threads);
// The same of AVX512_BF16's VDPBF16PS, where the machine has it (has_bf16_dot()).
double measure_dot_gflops(unsigned threads);

}  // namespace baton::ops
