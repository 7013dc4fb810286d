#include <cassert>
#include <string>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/packed_matrix.h"
#include "common/ops/cpu/parallel.h"

namespace baton::ops {
namespace {

float to_f32(float v) { return v; }
float to_f32(uint16_t v) { return bf16_to_f32(v); }
void put(float v, float* out) { *out = v; }
void put(float v, uint16_t* out) { *out = f32_to_bf16(v); }

// Where output feature `n` stands in the parts; null past the last one.
const Tensor* find_part(std::span<const Tensor> parts, int64_t& n) {
  for (const Tensor& part : parts) {
    if (n < part.rows) return &part;
    n -= part.rows;
  }
  return nullptr;
}

template <class To>
void fill_column(const Tensor* part, int64_t row, int64_t k, To* out) {
  for (int64_t i = 0; i < k; ++i) {
    if (part == nullptr) {
      put(0.0f, out + i * kPanel);
    } else if (part->dtype == DType::kF32) {
      put(to_f32(part->row<float>(row)[i]), out + i * kPanel);
    } else {
      put(to_f32(part->row<uint16_t>(row)[i]), out + i * kPanel);
    }
  }
}

template <class To>
void fill_panels(std::span<const Tensor> parts, const CpuPackedMatrix& m, int64_t begin,
                 int64_t end) {
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t c = 0; c < kPanel; ++c) {
      int64_t row = p * kPanel + c;
      const Tensor* part = find_part(parts, row);
      fill_column(part, row, m.k(), m.panel<To>(p) + c);
    }
  }
}

status check_parts(std::span<const Tensor> parts, DType store) {
  if (parts.empty()) return error(Errc::kInvalidArgument, "pack: no parts");
  if (store != DType::kF32 && store != DType::kBF16) {
    return error(Errc::kUnsupported, "pack: cannot store " + std::string(name(store)));
  }
  for (const Tensor& part : parts) {
    if (part.dtype != DType::kF32 && part.dtype != DType::kBF16) {
      return error(Errc::kUnsupported, "pack: cannot read " + std::string(name(part.dtype)));
    }
    if (part.cols != parts[0].cols || part.rows <= 0 || part.cols <= 0) {
      return error(Errc::kInvalidArgument, "pack: parts of different or empty shape");
    }
  }
  return {};
}

}  // namespace

result<std::unique_ptr<PackedMatrix>> cpu_pack(device::Device& device,
                                               std::span<const Tensor> parts, DType store) {
  BATON_CHECK_OK(check_parts(parts, store));
  int64_t n = 0;
  for (const Tensor& part : parts) n += part.rows;
  const int64_t k = parts[0].cols;
  BATON_TRY(device::Buffer buffer, device.allocate(CpuPackedMatrix::bytes_for(n, k, store)));
  auto matrix = std::make_unique<CpuPackedMatrix>(n, k, store, std::move(buffer));
  const auto stream = device.make_stream();
  parallel_rows(*stream, matrix->panels(), kPanel * k, [&](int64_t begin, int64_t end) {
    if (store == DType::kF32) {
      fill_panels<float>(parts, *matrix, begin, end);
    } else {
      fill_panels<uint16_t>(parts, *matrix, begin, end);
    }
  });
  return std::unique_ptr<PackedMatrix>(std::move(matrix));
}

}  // namespace baton::ops
