#include "common/ops/cpu/cpu_ops.h"

#include <fmt/format.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "common/base/log.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/isa.h"
#include "common/ops/cpu/onednn.h"

namespace baton::ops {
namespace {

void throw_on_error(const status& s) {
  if (!s) throw std::runtime_error(s.error().message);
}

// oneDNN where it can, our own kernel for shapes that it has nothing for.
result<std::unique_ptr<PackedMatrix>> pack_for_onednn(device::Device& device,
                                                      std::span<const Tensor> parts, DType store) {
  if (store != DType::kBF16) return cpu_pack(device, parts, store);
  auto packed = onednn_pack(device, parts, store, /*invariant=*/true);
  if (!packed && packed.error().code == Errc::kUnsupported) return cpu_pack(device, parts, store);
  return packed;
}

}  // namespace

std::string onednn_in_use(std::string_view isa_cap) {
  if (!isa_cap.empty()) return {};
  const std::string kernel = onednn_invariant_kernel(DType::kBF16);
  if (kernel.empty()) return {};
  const status checked = check_onednn();
  if (checked) return kernel;
  LOG_WARN("oneDNN's kernel {} is not used: {}", kernel, checked.error().message);
  return {};
}

std::string cpu_numerics(std::string_view onednn_kernel) {
  // One chain of f32 FMAs an output, sums in 16 lanes, tiles of 256: the same on every instruction
  // set. A change of any result's bits is a new number.
  if (onednn_kernel.empty()) return "cpu-f32-chain-1";
  // oneDNN's kernels for different instruction sets add in different orders.
  return fmt::format("cpu-onednn-{}-{}-1", onednn_version(), onednn_kernel);
}

Ops cpu_ops() {
  const char* variable = std::getenv("BATON_MAX_ISA");
  const std::string_view isa_cap = variable == nullptr ? "" : variable;
  throw_on_error(cap_isa(isa_cap));
  throw_on_error(check_isa());
  const std::string onednn = onednn_in_use(isa_cap);
  return {.backend = "cpu",
          .numerics = cpu_numerics(onednn),
          .activation = DType::kF32,
          .pack = onednn.empty() ? cpu_pack : pack_for_onednn,
          .matmul = cpu_matmul,
          .resolve_drawn = cpu_resolve_drawn,
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
