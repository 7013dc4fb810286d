#include "common/ops/cuda/cuda_ops.h"

#include <fmt/format.h>

#include "common/ops/cuda/attention.h"
#include "common/ops/cuda/functions.h"

namespace baton::ops {

result<Ops> cuda_ops(const CudaOptions& options) {
  // A change of any result's bits is a new number. Without `deterministic` the kernels that a batch
  // gets depend on its size, so workers of one value agree within a bound, not in every bit.
  const DType half = options.half;
  if (half != DType::kBF16 && half != DType::kF16) {
    return error(Errc::kInvalidArgument,
                 fmt::format("cuda: computing in {} is not offered; use bf16 or f16", name(half)));
  }
  const bool is_f16 = half == DType::kF16;
  Ops ops = {.backend = "cuda",
             .numerics = is_f16 ? "cuda-f16-1" : "cuda-bf16-2",
             .activation = half,
             .bf16_input = half,
             .pack = cuda_pack,
             .make_rows = cuda_make_rows,
             .matmul = cuda_matmul,
             .resolve_drawn = cuda_resolve_drawn,
             .embed = cuda_embed,
             .embed_packed = cuda_embed_packed,
             .rms_norm = cuda_rms_norm,
             .rope_angles = cuda_rope_angles,
             .rope_and_write_kv = cuda_rope_and_write_kv,
             .attention = cuda_attention,
             .attention_partials = cuda_attention_partials,
             .merge_partials = cuda_merge_partials,
             .silu_mul = cuda_silu_mul,
             .gather_rows = cuda_gather_rows,
             .join_columns = cuda_join_columns,
             .sample = cuda_sample,
             .score = cuda_score,
             .export_kv = cuda_export_kv,
             .import_kv = cuda_import_kv};
  if (options.deterministic) {
    ops.numerics = is_f16 ? "cuda-f16-deterministic-1" : "cuda-bf16-deterministic-2";
    ops.matmul = cuda_matmul_deterministic;
    ops.attention = cuda_attention_deterministic;
  }
  return ops;
}

}  // namespace baton::ops
