#include "common/ops/cpu/onednn.h"

namespace baton::ops {

bool onednn_is_invariant(DType) { return false; }

std::string onednn_kernel(DType) { return {}; }

std::string onednn_version() { return {}; }

result<std::unique_ptr<PackedMatrix>> onednn_pack(device::Device&, std::span<const Tensor>, DType,
                                                  bool) {
  return error(Errc::kUnsupported, "this build has no oneDNN");
}

}  // namespace baton::ops
