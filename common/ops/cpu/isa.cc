#include "common/ops/cpu/isa.h"

#include <string>

#include "hwy/highway.h"

namespace baton::ops {

std::string_view isa_in_force() {
#if HWY_ARCH_X86
  return (hwy::SupportedTargets() & HWY_AVX3) != 0 ? "avx3" : "avx2";
#else
  return hwy::TargetName(HWY_STATIC_TARGET);
#endif
}

status cap_isa(std::string_view max_isa) {
#if HWY_ARCH_X86
  if (max_isa == "avx2") {
    hwy::DisableTargets(HWY_AVX2 - 1);  // the lower the bit, the newer the instruction set
  } else if (max_isa.empty() || max_isa == "avx3") {
    hwy::DisableTargets(0);
  } else {
    return error(Errc::kInvalidArgument,
                 "BATON_MAX_ISA: '" + std::string(max_isa) + "' is neither avx2 nor avx3");
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return {};
#else
  if (max_isa.empty()) return {};
  return error(Errc::kUnsupported, "BATON_MAX_ISA: only on x86");
#endif
}

status check_isa() {
#if HWY_ARCH_X86
  if ((hwy::SupportedTargets() & (HWY_AVX2 | (HWY_AVX2 - 1))) == 0) {
    return error(Errc::kUnsupported, "this CPU has no AVX2 with FMA, which Baton needs");
  }
#endif
  return {};
}

}  // namespace baton::ops
