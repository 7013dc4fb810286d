#include "common/model/workspace.h"

#include <algorithm>

namespace baton::model {
namespace {

using device::Tensor;

// Hands out 64-byte aligned pieces; first with no memory, to learn the size, then with it.
class Arena {
 public:
  explicit Arena(std::byte* base) : base_(base) {}

  Tensor matrix(int64_t rows, int64_t cols, DType dtype) {
    Tensor t = Tensor::matrix(base_ == nullptr ? nullptr : base_ + used_, dtype, rows, cols);
    used_ += (static_cast<size_t>(rows * cols) * size_bytes(dtype) + 63) / 64 * 64;
    return t;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

size_t lay_out(std::byte* base, const formats::ModelConfig& c, WorkspaceTypes types,
               const WorkspaceSize& size, Workspace* w) {
  Arena arena(base);
  const int64_t rows = size.rows, out_rows = size.out_rows;
  const int64_t most = std::max(rows, out_rows);  // the last layer's buffers serve both
  const int64_t q_cols = int64_t{c.num_heads} * c.head_dim;
  const int64_t kv_cols = int64_t{c.num_kv_heads} * c.head_dim;
  w->x = arena.matrix(rows, c.hidden, DType::kF32);
  w->cos = arena.matrix(rows, c.head_dim / 2, DType::kF32);
  w->sin = arena.matrix(rows, c.head_dim / 2, DType::kF32);
  w->normed = arena.matrix(most, c.hidden, types.input);
  w->qkv = arena.matrix(rows, q_cols + 2 * kv_cols, types.activation);
  w->q = arena.matrix(rows, q_cols, types.activation);
  w->attn = arena.matrix(most, q_cols, types.input);
  w->gate_up = arena.matrix(most, 2 * int64_t{c.intermediate}, types.activation);
  w->mlp = arena.matrix(most, c.intermediate, types.input);
  w->out_x = arena.matrix(out_rows, c.hidden, DType::kF32);
  w->out_q = arena.matrix(out_rows, q_cols, types.activation);
  w->hidden = arena.matrix(out_rows, c.hidden, types.input);
  w->logits = arena.matrix(size.logit_rows, c.vocab_size, DType::kF32);
  return arena.used();
}

}  // namespace

result<Workspace> make_workspace(device::Device& device, const formats::ModelConfig& config,
                                 WorkspaceTypes types, const WorkspaceSize& size) {
  Workspace w;
  BATON_TRY(w.memory, device.allocate(lay_out(nullptr, config, types, size, &w)));
  lay_out(w.memory.data(), config, types, size, &w);
  return w;
}

}  // namespace baton::model
