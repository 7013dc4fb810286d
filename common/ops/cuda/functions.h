#pragma once

#include "common/ops/ops.h"

// The entries of the CUDA table; ops.h has their contracts.
namespace baton::ops {

result<std::unique_ptr<PackedMatrix>> cuda_pack(device::Device&, std::span<const Tensor> parts,
                                                DType store);
result<RowMatrix> cuda_make_rows(device::Device&, int64_t n, int64_t k, DType store);
void cuda_matmul(Stream&, const Tensor& x, const PackedMatrix& w, const float* bias,
                 const Tensor& out, bool accumulate);
void cuda_matmul_deterministic(Stream&, const Tensor& x, const PackedMatrix& w, const float* bias,
                               const Tensor& out, bool accumulate);
void cuda_resolve_drawn(Stream&, std::span<TokenId> ids, const TokenId* drawn);
void cuda_embed(Stream&, std::span<const TokenId> ids, const Tensor& table, const Tensor& out);
void cuda_embed_packed(Stream&, std::span<const TokenId> ids, const PackedMatrix& table,
                       const Tensor& out);
void cuda_rms_norm(Stream&, const Tensor& x, const float* weight, float eps, const Tensor& out);
void cuda_rope_angles(Stream&, std::span<const uint32_t> positions, std::span<const float> inv_freq,
                      const Tensor& cos, const Tensor& sin);
void cuda_rope_and_write_kv(Stream&, const RopeKvArgs&);
void cuda_attention(Stream&, const AttentionArgs&);
void cuda_attention_partials(Stream&, const AttentionArgs&, const AttentionPartials&);
void cuda_merge_partials(Stream&, std::span<const AttentionPartials> parts, uint32_t num_heads,
                         const Tensor& out);
void cuda_silu_mul(Stream&, const Tensor& gate_up, const Tensor& out);
void cuda_gather_rows(Stream&, const Tensor& x, std::span<const uint32_t> rows, const Tensor& out);
void cuda_join_columns(Stream&, std::span<const Tensor> parts, const Tensor& out);
void cuda_sample(Stream&, const Tensor& logits, std::span<const SampleRow> rows,
                 std::span<SampleResult> results);
void cuda_score(Stream&, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
                std::span<SampleResult> results);
void cuda_export_kv(Stream&, const ExportKvArgs&);
void cuda_import_kv(Stream&, const ImportKvArgs&);

}  // namespace baton::ops
