#pragma once

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>

#include "common/base/dtype.h"

namespace baton::device {

// A shaped view of memory that somebody else owns; a value, cheap to copy. Rows are contiguous;
// `row_stride` (in elements) may exceed the row, so that a slice of columns is a Tensor too.
struct Tensor {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;        // 1 for a vector
  int64_t cols = 0;        // elements in a row
  int64_t row_stride = 0;  // elements from a row to the next

  static Tensor matrix(void* data, DType t, int64_t rows, int64_t cols) {
    return {data, t, rows, cols, cols};
  }
  static Tensor matrix(void* data, DType t, int64_t rows, int64_t cols, int64_t row_stride) {
    return {data, t, rows, cols, row_stride};
  }

  template <class T>
  T* as() const {
    assert(sizeof(T) == size_bytes(dtype));
    return static_cast<T*>(data);
  }
  template <class T>
  T* row(int64_t r) const {
    assert(r >= 0 && r < rows);
    return as<T>() + r * row_stride;
  }
  // Row r, whatever its elements are.
  std::byte* at(int64_t r) const {
    assert(r >= 0 && r < rows);
    return static_cast<std::byte*>(data) + static_cast<size_t>(r * row_stride) * size_bytes(dtype);
  }
  // Rows [begin, begin + count): same memory.
  Tensor slice_rows(int64_t begin, int64_t count) const {
    assert(begin >= 0 && begin + count <= rows);
    Tensor t = *this;
    t.data =
        static_cast<std::byte*>(data) + static_cast<size_t>(begin * row_stride) * size_bytes(dtype);
    t.rows = count;
    return t;
  }
  // Columns [begin, begin + count): same memory, same stride.
  Tensor slice_cols(int64_t begin, int64_t count) const {
    assert(begin >= 0 && begin + count <= cols);
    Tensor t = *this;
    t.data = static_cast<std::byte*>(data) + static_cast<size_t>(begin) * size_bytes(dtype);
    t.cols = count;
    return t;
  }
};

}  // namespace baton::device
