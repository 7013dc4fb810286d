#include "common/ops/cpu/cpu_ops.h"

#include <fmt/format.h>

#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "common/base/log.h"
#include "common/ops/cpu/dot_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/isa.h"
#include "common/ops/cpu/onednn.h"

namespace baton::ops {
namespace {

void throw_on_error(const status& s) {
  if (!s) throw std::runtime_error(s.error().message);
}

// AMX does several times what VDPBF16PS does, which is ours to use (dot_matrix.h): oneDNN's kernels
// for less than AMX are slower than that one.
std::string amx_kernel() {
  const std::string kernel = onednn_invariant_kernel(DType::kBF16);
  if (kernel.find("amx") == std::string::npos) return {};
  const status checked = check_onednn();
  if (checked) return kernel;
  LOG_WARN("oneDNN's kernel {} is not used: {}", kernel, checked.error().message);
  return {};
}

result<std::unique_ptr<PackedMatrix>> pack_for_dot(device::Device& device,
                                                   std::span<const Tensor> parts, DType store) {
  return store == DType::kBF16 ? dot_pack(device, parts) : cpu_pack(device, parts, store);
}

// oneDNN where it can, our own kernel for shapes that it has nothing for.
result<std::unique_ptr<PackedMatrix>> pack_for_onednn(device::Device& device,
                                                      std::span<const Tensor> parts, DType store) {
  if (store != DType::kBF16) return cpu_pack(device, parts, store);
  auto packed = onednn_pack(device, parts, store, /*invariant=*/true);
  if (!packed && packed.error().code == Errc::kUnsupported) return dot_pack(device, parts);
  return packed;
}

}  // namespace

Bf16Products bf16_products(std::string_view isa_cap) {
  if (!isa_cap.empty() || !has_bf16_dot()) return {};
  return {.dot = true, .onednn = amx_kernel()};
}

std::string cpu_numerics(const Bf16Products& products) {
  // One chain of f32 FMAs an output, sums in 16 lanes, tiles of 256: the same on every instruction
  // set. A change of any result's bits is a new number.
  if (!products.dot) return "cpu-f32-chain-1";
  const std::string dot = "cpu-bf16-dot-1-" + dot_rounding();
  if (products.onednn.empty()) return dot;
  // oneDNN's kernels for different instruction sets add in different orders.
  return fmt::format("{}-onednn-{}-{}-1", dot, onednn_version(), products.onednn);
}

Ops cpu_ops() {
  const char* variable = std::getenv("BATON_MAX_ISA");
  const std::string_view isa_cap = variable == nullptr ? "" : variable;
  throw_on_error(cap_isa(isa_cap));
  throw_on_error(check_isa());
  const Bf16Products products = bf16_products(isa_cap);
  return {.backend = "cpu",
          .numerics = cpu_numerics(products),
          .activation = DType::kF32,
          .bf16_input = products.dot ? DType::kBF16 : DType::kF32,
          .pack = !products.dot             ? cpu_pack
                  : products.onednn.empty() ? pack_for_dot
                                            : pack_for_onednn,
          .matmul = cpu_matmul,
          .resolve_drawn = cpu_resolve_drawn,
          .embed = cpu_embed,
          .embed_packed = cpu_embed_packed,
          .rms_norm = cpu_rms_norm,
          .rope_angles = cpu_rope_angles,
          .rope_and_write_kv = cpu_rope_and_write_kv,
          .attention = products.dot ? cpu_attention_dot : cpu_attention,
          .attention_partials = products.dot ? cpu_attention_partials_dot : cpu_attention_partials,
          .merge_partials = cpu_merge_partials,
          .silu_mul = cpu_silu_mul,
          .gather_rows = cpu_gather_rows,
          .join_columns = cpu_join_columns,
          .sample = cpu_sample,
          .score = cpu_score};
}

}  // namespace baton::ops
