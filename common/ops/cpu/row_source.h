#pragma once

#include <span>
#include <string>

#include "common/ops/ops.h"

namespace baton::ops {

// The rows of several tensors, f32 or bf16, one under the other, as pack() is given them.
class RowSource {
 public:
  static result<RowSource> make(std::span<const Tensor> parts, DType store) {
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
    return RowSource(parts);
  }

  int64_t rows() const { return rows_; }
  int64_t cols() const { return parts_[0].cols; }

  // out[0..cols) = row `r`, converted to To (float, or uint16_t for bf16); zeros past the last row.
  template <class To>
  void read(int64_t r, To* out) const {
    for (const Tensor& part : parts_) {
      if (r < part.rows) {
        if (part.dtype == DType::kF32) return convert(part.row<float>(r), out);
        return convert(part.row<uint16_t>(r), out);
      }
      r -= part.rows;
    }
    std::fill_n(out, cols(), To{0});
  }

 private:
  explicit RowSource(std::span<const Tensor> parts) : parts_(parts) {
    for (const Tensor& part : parts) rows_ += part.rows;
  }

  static float to_f32(float v) { return v; }
  static float to_f32(uint16_t v) { return bf16_to_f32(v); }

  template <class From, class To>
  void convert(const From* from, To* out) const {
    for (int64_t i = 0; i < cols(); ++i) {
      if constexpr (sizeof(To) == sizeof(float)) {
        out[i] = to_f32(from[i]);
      } else {
        out[i] = f32_to_bf16(to_f32(from[i]));
      }
    }
  }

  std::span<const Tensor> parts_;
  int64_t rows_ = 0;
};

}  // namespace baton::ops
