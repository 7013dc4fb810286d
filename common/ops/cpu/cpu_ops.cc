#include "common/ops/cpu/cpu_ops.h"

#include <cstdlib>
#include <stdexcept>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/isa.h"

namespace baton::ops {
namespace {

void throw_on_error(const status& s) {
  if (!s) throw std::runtime_error(s.error().message);
}

}  // namespace

Ops cpu_ops() {
  const char* max_isa = std::getenv("BATON_MAX_ISA");
  throw_on_error(cap_isa(max_isa == nullptr ? "" : max_isa));
  throw_on_error(check_isa());
  return {.backend = "cpu",
          // One chain of f32 FMAs an output, sums in 16 lanes, tiles of 256: the same on every
          // instruction set. A change of any result's bits is a new number.
          .numerics = "cpu-f32-chain-1",
          .activation = DType::kF32,
          .pack = cpu_pack,
          .matmul = cpu_matmul,
          .embed = cpu_embed,
          .embed_packed = cpu_embed_packed,
          .rms_norm = cpu_rms_norm,
          .rope_angles = cpu_rope_angles,
          .rope_and_write_kv = cpu_rope_and_write_kv,
          .attention = cpu_attention,
          .attention_partials = cpu_attention_partials,
          .merge_partials = cpu_merge_partials,
          .silu_mul = cpu_silu_mul,
          .gather_rows = cpu_gather_rows,
          .sample = cpu_sample,
          .score = cpu_score};
}

}  // namespace baton::ops
