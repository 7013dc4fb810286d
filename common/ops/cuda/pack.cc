#include <fmt/format.h>

#include <vector>

#include "common/ops/cuda/cuda_matrix.h"
#include "common/ops/cuda/functions.h"

namespace baton::ops {
namespace {

status check_store(DType store) {
  if (store == DType::kBF16 || store == DType::kF16) return {};
  return error(Errc::kUnsupported,
               fmt::format("cuda: weights in {} are not offered; use bf16 or f16", name(store)));
}

status check(std::span<const Tensor> parts, DType store) {
  BATON_CHECK_OK(check_store(store));
  if (parts.empty()) return error(Errc::kInvalidArgument, "cuda: a matrix of no parts");
  for (const Tensor& p : parts) {
    if (p.cols != parts[0].cols) {
      return error(Errc::kInvalidArgument,
                   fmt::format("cuda: parts of {} and {} columns do not make one matrix",
                               parts[0].cols, p.cols));
    }
    if (p.dtype != store && p.dtype != DType::kF32) {
      return error(Errc::kUnsupported,
                   fmt::format("cuda: cannot pack {} as {}", name(p.dtype), name(store)));
    }
  }
  return {};
}

std::vector<uint16_t> narrowed(const Tensor& t, DType store) {
  const auto to_half = store == DType::kF16 ? f32_to_f16 : f32_to_bf16;
  std::vector<uint16_t> out;
  out.reserve(static_cast<size_t>(t.rows * t.cols));
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t c = 0; c < t.cols; ++c) out.push_back(to_half(t.row<float>(r)[c]));
  }
  return out;
}

}  // namespace

result<RowMatrix> cuda_make_rows(device::Device& device, int64_t n, int64_t k, DType store) {
  BATON_CHECK_OK(check_store(store));
  BATON_TRY(device::Buffer memory, device.allocate(static_cast<size_t>(n * k) * sizeof(uint16_t)));
  std::byte* const rows = memory.data();
  return RowMatrix{std::make_unique<CudaMatrix>(std::move(memory), n, k, store), rows};
}

result<std::unique_ptr<PackedMatrix>> cuda_pack(device::Device& device,
                                                std::span<const Tensor> parts, DType store) {
  BATON_CHECK_OK(check(parts, store));
  const int64_t k = parts[0].cols;
  int64_t n = 0;
  for (const Tensor& p : parts) n += p.rows;
  BATON_TRY(RowMatrix made, cuda_make_rows(device, n, k, store));
  const auto stream = device.make_stream();
  std::byte* to = made.rows;
  for (const Tensor& p : parts) {
    const size_t bytes = static_cast<size_t>(p.rows * k) * sizeof(uint16_t);
    if (p.dtype == store && p.row_stride == k) {
      device.copy(*stream, to, p.data, bytes);
      stream->synchronize();
    } else if (p.dtype == store) {
      const size_t row = static_cast<size_t>(k) * sizeof(uint16_t);
      for (int64_t r = 0; r < p.rows; ++r)
        device.copy(*stream, to + r * row, p.row<uint16_t>(r), row);
      stream->synchronize();
    } else {
      const std::vector<uint16_t> half = narrowed(p, store);
      device.copy(*stream, to, half.data(), bytes);
      stream->synchronize();
    }
    to += bytes;
  }
  return std::move(made.matrix);
}

}  // namespace baton::ops
