#include "common/ops/cuda/attention_wgmma_launch.cuh"

namespace baton::ops::wgmma {

template void attend<f16>(CudaStream&, const AttentionArgs&, Params&);

}  // namespace baton::ops::wgmma
