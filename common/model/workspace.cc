#include "common/model/workspace.h"

#include <algorithm>
#include <numeric>
#include <span>

namespace baton::model {
namespace {

using device::Tensor;

// Hands out 64-byte aligned pieces; first with no memory, to learn the size, then with it.
class Arena {
 public:
  explicit Arena(std::byte* base) : base_(base) {}

  std::byte* bytes(size_t count) {
    std::byte* const at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count + 63) / 64 * 64;
    return at;
  }
  Tensor matrix(int64_t rows, int64_t cols, DType dtype) {
    const size_t count = static_cast<size_t>(rows * cols) * size_bytes(dtype);
    return Tensor::matrix(bytes(count), dtype, rows, cols);
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// `all`, and this rank's part of its columns: the same memory where there are no other ranks.
void both(Arena& arena, int64_t rows, std::span<const uint32_t> cols, const Shards& shards,
          DType dtype, Tensor* all, Tensor* part) {
  *all = arena.matrix(rows, std::accumulate(cols.begin(), cols.end(), int64_t{0}), dtype);
  *part = shards.is_whole() ? *all : arena.matrix(rows, shards.own(cols), dtype);
}

// The most bytes that ranks gather at once.
size_t gathered_bytes(const Workspace& w) {
  size_t most = 0;
  for (const Tensor* t : {&w.x, &w.attn, &w.mlp, &w.out_x, &w.logits}) {
    most = std::max(most, static_cast<size_t>(t->rows * t->cols) * size_bytes(t->dtype));
  }
  return most;
}

size_t lay_out(std::byte* base, const formats::ModelConfig& c, const Shards& shards,
               WorkspaceTypes types, const WorkspaceSize& size, Workspace* w) {
  Arena arena(base);
  const int64_t rows = size.rows, out_rows = size.out_rows;
  const int64_t most = std::max(rows, out_rows);  // the last layer's buffers serve both
  const int64_t q_cols = shards.own(shards.q_cols());
  const int64_t kv_cols = int64_t{shards.own(shards.kv_heads())} * c.head_dim;
  both(arena, rows, shards.hidden(), shards, DType::kF32, &w->x, &w->x_part);
  w->cos = arena.matrix(rows, c.head_dim / 2, DType::kF32);
  w->sin = arena.matrix(rows, c.head_dim / 2, DType::kF32);
  w->normed = arena.matrix(most, c.hidden, types.input);
  w->qkv = arena.matrix(rows, q_cols + 2 * kv_cols, types.activation);
  w->q = arena.matrix(rows, q_cols, types.activation);
  both(arena, most, shards.q_cols(), shards, types.input, &w->attn, &w->attn_part);
  w->gate_up = arena.matrix(most, 2 * int64_t{shards.own(shards.intermediate())}, types.activation);
  both(arena, most, shards.intermediate(), shards, types.input, &w->mlp, &w->mlp_part);
  both(arena, out_rows, shards.hidden(), shards, DType::kF32, &w->out_x, &w->out_x_part);
  w->out_q = arena.matrix(out_rows, q_cols, types.activation);
  w->hidden = arena.matrix(out_rows, c.hidden, types.input);
  both(arena, size.logit_rows, shards.vocab(), shards, DType::kF32, &w->logits, &w->logits_part);
  if (!shards.is_whole()) w->gathered = arena.bytes(gathered_bytes(*w));
  return arena.used();
}

}  // namespace

result<Workspace> make_workspace(device::Device& device, const formats::ModelConfig& config,
                                 const Shards& shards, WorkspaceTypes types,
                                 const WorkspaceSize& size) {
  Workspace w;
  BATON_TRY(w.memory, device.allocate(lay_out(nullptr, config, shards, types, size, &w)));
  lay_out(w.memory.data(), config, shards, types, size, &w);
  return w;
}

}  // namespace baton::model
