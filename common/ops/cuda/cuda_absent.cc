// In place of this folder's other files in builds without CUDA.
#include "common/ops/cuda/cuda_ops.h"

namespace baton::ops {

result<Ops> cuda_ops(const CudaOptions&) {
  return error(Errc::kUnsupported, "this build has no CUDA");
}

}  // namespace baton::ops
