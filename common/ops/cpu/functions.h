#pragma once

#include "common/ops/ops.h"

// The CPU operations, each in the file of its name; cpu_ops() puts them into the table. Contracts
// stand in ops.h.
namespace baton::ops {

result<std::unique_ptr<PackedMatrix>> cpu_pack(device::Device&, std::span<const Tensor> parts,
                                               DType store);
void cpu_matmul(Stream&, const Tensor& x, const PackedMatrix& w, const float* bias,
                const Tensor& out, bool accumulate);
void cpu_resolve_drawn(Stream&, std::span<TokenId> ids, const TokenId* drawn);
void cpu_embed(Stream&, std::span<const TokenId> ids, const Tensor& table, const Tensor& out);
void cpu_embed_packed(Stream&, std::span<const TokenId> ids, const PackedMatrix& table,
                      const Tensor& out);
void cpu_rms_norm(Stream&, const Tensor& x, const float* weight, float eps, const Tensor& out);
void cpu_rope_angles(Stream&, std::span<const uint32_t> positions, std::span<const float> inv_freq,
                     const Tensor& cos, const Tensor& sin);
void cpu_rope_and_write_kv(Stream&, const RopeKvArgs&);
void cpu_attention(Stream&, const AttentionArgs&);
void cpu_attention_partials(Stream&, const AttentionArgs&, const AttentionPartials&);
// As those, but over a cache of bf16 by VDPBF16PS (attention_dot.h).
void cpu_attention_dot(Stream&, const AttentionArgs&);
void cpu_attention_partials_dot(Stream&, const AttentionArgs&, const AttentionPartials&);
void cpu_merge_partials(Stream&, std::span<const AttentionPartials> parts, uint32_t num_heads,
                        const Tensor& out);
void cpu_silu_mul(Stream&, const Tensor& gate_up, const Tensor& out);
void cpu_join_columns(Stream&, std::span<const Tensor> parts, const Tensor& out);
void cpu_gather_rows(Stream&, const Tensor& x, std::span<const uint32_t> rows, const Tensor& out);
void cpu_sample(Stream&, const Tensor& logits, std::span<const SampleRow> rows,
                std::span<SampleResult> results);
void cpu_score(Stream&, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
               std::span<SampleResult> results);

}  // namespace baton::ops
