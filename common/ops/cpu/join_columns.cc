#include <cassert>
#include <cstring>

#include "common/ops/cpu/functions.h"
#include "common/ops/cpu/parallel.h"

namespace baton::ops {

void cpu_join_columns(Stream& stream, std::span<const Tensor> parts, const Tensor& out) {
  parallel_rows(stream, out.rows, out.cols, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      std::byte* to = out.at(r);
      for (const Tensor& part : parts) {
        assert(part.rows == out.rows && part.dtype == out.dtype);
        const size_t bytes = static_cast<size_t>(part.cols) * size_bytes(part.dtype);
        std::memcpy(to, part.at(r), bytes);
        to += bytes;
      }
    }
  });
}

}  // namespace baton::ops
