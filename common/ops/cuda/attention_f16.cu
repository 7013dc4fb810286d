#include "common/ops/cuda/attention_launch.cuh"

namespace baton::ops::attention {

template void run_tiles<f16>(CudaStream&, const AttentionArgs&, const TilePlan&,
                             const AttentionRecords&, bool);
template void run_rows<f16>(CudaStream&, const AttentionArgs&, std::span<const RowItem>);

}  // namespace baton::ops::attention
