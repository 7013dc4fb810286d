#include <cassert>
#include <cstring>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"

namespace baton::ops {
namespace {

void widen(const uint16_t* from, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) out[i] = bf16_to_f32(from[i]);
}

}  // namespace

void cpu_resolve_drawn(Stream&, std::span<TokenId> ids, const TokenId* drawn) {
  for (TokenId& id : ids) {
    if (id < 0) id = drawn[-1 - id];
  }
}

void cpu_embed(Stream& stream, std::span<const TokenId> ids, const Tensor& table,
               const Tensor& out) {
  assert(out.rows == static_cast<int64_t>(ids.size()) && out.cols == table.cols);
  parallel_rows(stream, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      if (table.dtype == DType::kF32) {
        std::memcpy(out.row<float>(r), table.row<float>(ids[r]),
                    static_cast<size_t>(out.cols) * sizeof(float));
      } else {
        widen(table.row<uint16_t>(ids[r]), out.cols, out.row<float>(r));
      }
    }
  });
}

void cpu_embed_packed(Stream& stream, std::span<const TokenId> ids, const PackedMatrix& table,
                      const Tensor& out) {
  const auto& matrix = static_cast<const CpuMatrix&>(table);
  assert(out.rows == static_cast<int64_t>(ids.size()) && out.cols == matrix.k());
  parallel_rows(stream, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) matrix.read_row(ids[r], out.row<float>(r));
  });
}

void cpu_gather_rows(Stream& stream, const Tensor& x, std::span<const uint32_t> rows,
                     const Tensor& out) {
  assert(out.rows == static_cast<int64_t>(rows.size()) && out.cols == x.cols);
  parallel_rows(stream, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(out.row<float>(r), x.row<float>(rows[r]),
                  static_cast<size_t>(x.cols) * sizeof(float));
    }
  });
}

}  // namespace baton::ops
