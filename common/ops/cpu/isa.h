#pragma once

#include <string_view>

#include "common/base/result.h"

namespace baton::ops {

// The instruction set that the CPU operations run with: "avx2" or "avx3" (AVX-512), as the machine
// and the cap allow.
std::string_view isa_in_force();

// Caps it to "avx2" or "avx3"; empty lifts the cap. Before any operation runs: results of
// different instruction sets agree, but this keeps a test's or an operator's word.
status cap_isa(std::string_view max_isa);

// Why this machine cannot run the CPU operations at all, if so.
status check_isa();

}  // namespace baton::ops
