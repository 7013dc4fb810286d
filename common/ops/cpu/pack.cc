#include <vector>

#include "common/ops/cpu/cpu_matrix.h"
#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"
#include "common/ops/cpu/row_source.h"

namespace baton::ops {
namespace {

template <class To>
void fill_panels(const RowSource& source, const PanelMatrix& m, int64_t begin, int64_t end) {
  std::vector<To> row(static_cast<size_t>(m.k()));
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t c = 0; c < kPanel; ++c) {
      source.read(p * kPanel + c, row.data());
      To* column = m.panel<To>(p) + c;
      for (int64_t i = 0; i < m.k(); ++i) column[i * kPanel] = row[i];
    }
  }
}

}  // namespace

result<std::unique_ptr<PackedMatrix>> cpu_pack(device::Device& device,
                                               std::span<const Tensor> parts, DType store) {
  BATON_TRY(const RowSource source, RowSource::make(parts, store));
  const int64_t n = source.rows(), k = source.cols();
  BATON_TRY(device::Buffer buffer, device.allocate(PanelMatrix::bytes_for(n, k, store)));
  auto matrix = std::make_unique<PanelMatrix>(n, k, store, std::move(buffer));
  const auto stream = device.make_stream();
  parallel_rows(*stream, matrix->panels(), kPanel * k, [&](int64_t begin, int64_t end) {
    if (store == DType::kF32) {
      fill_panels<float>(source, *matrix, begin, end);
    } else {
      fill_panels<uint16_t>(source, *matrix, begin, end);
    }
  });
  return std::unique_ptr<PackedMatrix>(std::move(matrix));
}

void PanelMatrix::read_row(int64_t n, float* out) const {
  const int64_t p = n / kPanel, c = n % kPanel;
  for (int64_t i = 0; i < k_; ++i) {
    out[i] = dtype_ == DType::kF32 ? panel<float>(p)[i * kPanel + c]
                                   : bf16_to_f32(panel<uint16_t>(p)[i * kPanel + c]);
  }
}

}  // namespace baton::ops
