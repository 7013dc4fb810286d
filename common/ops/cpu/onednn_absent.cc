#include "common/ops/cpu/onednn.h"

namespace baton::ops {
namespace {

Error absent() { return error(Errc::kUnsupported, "this build has no oneDNN"); }

}  // namespace

std::string onednn_invariant_kernel(DType) { return {}; }

status check_onednn() { return absent(); }

std::string onednn_kernel(DType) { return {}; }

std::string onednn_version() { return {}; }

result<std::unique_ptr<PackedMatrix>> onednn_pack(device::Device&, std::span<const Tensor>, DType,
                                                  bool) {
  return absent();
}

}  // namespace baton::ops
