#include "common/model/weights.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <span>

#include "common/device/cpu/thread_pool.h"
#include "common/model/rope.h"
#include "common/model/upload_ring.h"
#include "common/model/weight_digest.h"

namespace baton::model {
namespace {

using device::Tensor;
using formats::TensorRole;
using formats::TensorView;

// The row of the file that becomes row `r`: pairs (2i, 2i+1) of a head go to (i, i + head_dim/2).
uint64_t interleaved_row(uint64_t r, uint64_t head_dim) {
  const uint64_t in_head = r % head_dim, half = head_dim / 2;
  return r - in_head + 2 * (in_head % half) + in_head / half;
}

class Loader {
 public:
  Loader(const formats::ModelFiles& files, device::Device& device, const ops::Ops& ops, DType store,
         const Progress& progress)
      : files_(files),
        config_(files.config()),
        device_(device),
        ops_(ops),
        store_(store),
        progress_(progress),
        stream_(device.make_stream()),
        pool_(device.info().threads),
        row_scratch_(device.info().threads) {
    for (const TensorView& t : files.tensors().tensors()) bytes_total_ += t.data.size();
  }

  result<Weights> load();

 private:
  status load_all(Weights* w);
  status load_layer(uint32_t layer, LayerWeights* w);
  status load_embedding(Weights* w);
  result<std::vector<float>> load_frequencies();

  result<std::unique_ptr<ops::PackedMatrix>> matrix(std::span<const TensorRole> parts,
                                                    uint32_t layer = 0);
  result<DeviceVector> vector(std::span<const TensorRole> parts, uint32_t layer = 0);
  result<std::unique_ptr<ops::PackedMatrix>> packed_matrix(std::span<const TensorRole> parts,
                                                           uint32_t layer);
  result<std::unique_ptr<ops::PackedMatrix>> matrix_by_rows(std::span<const TensorRole> parts,
                                                            uint32_t layer);
  void upload(const TensorView& view, bool interleaved, std::byte* to);
  Tensor read_rows(const TensorView& view, bool interleaved, std::byte* out);
  void read_slices(const TensorView& view, bool interleaved, uint64_t first_slice,
                   std::span<Digest128> digests, std::byte* out);
  void read_row(const TensorView& view, uint64_t from, std::span<float> row, std::byte* to) const;
  bool is_interleaved(TensorRole role) const;
  void done(const TensorView& view);

  const formats::ModelFiles& files_;
  const formats::ModelConfig& config_;
  device::Device& device_;
  const ops::Ops& ops_;
  const DType store_;
  const Progress& progress_;
  std::unique_ptr<device::Stream> stream_;
  device::ThreadPool pool_;
  std::vector<std::vector<float>> row_scratch_;  // [thread]
  std::optional<UploadRing> ring_;               // where matrices take rows as they come
  std::vector<std::byte> scratch_;               // the matrix that is being packed, rows of store_
  WeightDigest digest_;
  size_t bytes_done_ = 0, bytes_total_ = 0;
};

bool Loader::is_interleaved(TensorRole role) const {
  return config_.rope_interleaved && (role == TensorRole::kQ || role == TensorRole::kK ||
                                      role == TensorRole::kQBias || role == TensorRole::kKBias);
}

void Loader::done(const TensorView& view) {
  bytes_done_ += view.data.size();
  if (progress_) progress_(bytes_done_, bytes_total_);
}

// [rows, cols] of store_ in `out`.
Tensor Loader::read_rows(const TensorView& view, bool interleaved, std::byte* out) {
  const uint64_t rows = view.shape[0], cols = view.elements() / rows;
  const uint64_t slice_rows = digest_rows(view.data.size() / rows);
  std::vector<Digest128> digests((rows + slice_rows - 1) / slice_rows);
  read_slices(view, interleaved, 0, digests, out);
  digest_.add(view.name, digests);
  return Tensor::matrix(out, store_, static_cast<int64_t>(rows), static_cast<int64_t>(cols));
}

// As many slices as there is room for digests, from `first_slice` on; `out`: of its first row. A
// slice of the file is digested, and then converted from the CPU's cache.
void Loader::read_slices(const TensorView& view, bool interleaved, uint64_t first_slice,
                         std::span<Digest128> digests, std::byte* out) {
  const uint64_t rows = view.shape[0], cols = view.elements() / rows;
  const size_t row_bytes = view.data.size() / rows, store_bytes = cols * size_bytes(store_);
  const uint64_t slice_rows = digest_rows(row_bytes), first_row = first_slice * slice_rows;
  pool_.parallel_for(digests.size(), [&](size_t i, unsigned thread) {
    std::vector<float>& row = row_scratch_[thread];
    row.resize(cols);
    const uint64_t first = first_row + i * slice_rows, last = std::min(first + slice_rows, rows);
    digests[i] = digest_bytes(view.data.subspan(first * row_bytes, (last - first) * row_bytes));
    for (uint64_t r = first; r < last; ++r) {
      const uint64_t from = interleaved ? interleaved_row(r, config_.head_dim) : r;
      read_row(view, from, row, out + (r - first_row) * store_bytes);
    }
  });
}

// All rows to `to` on the device, piece by piece.
void Loader::upload(const TensorView& view, bool interleaved, std::byte* to) {
  const uint64_t rows = view.shape[0], cols = view.elements() / rows;
  const size_t store_bytes = cols * size_bytes(store_);
  const uint64_t slice_rows = digest_rows(view.data.size() / rows);
  std::vector<Digest128> digests((rows + slice_rows - 1) / slice_rows);
  const size_t piece = std::max<size_t>(UploadRing::kPieceBytes / (slice_rows * store_bytes), 1);
  for (size_t slice = 0; slice < digests.size(); slice += piece) {
    const size_t count = std::min(piece, digests.size() - slice);
    const uint64_t first = slice * slice_rows, last = std::min(first + count * slice_rows, rows);
    std::byte* const buffer = ring_->next();
    read_slices(view, interleaved, slice, std::span(digests).subspan(slice, count), buffer);
    ring_->send(*stream_, to + first * store_bytes, (last - first) * store_bytes);
  }
  digest_.add(view.name, digests);
}

// Row `from` of the file, as store_; `row` is scratch.
void Loader::read_row(const TensorView& view, uint64_t from, std::span<float> row,
                      std::byte* to) const {
  const size_t row_bytes = view.data.size() / view.shape[0];
  const auto source = view.data.subspan(from * row_bytes, row_bytes);
  if (view.type == formats::StorageType::kBF16 && store_ == DType::kBF16) {
    std::memcpy(to, source.data(), row_bytes);
    return;
  }
  formats::dequantize(view.type, source, row);
  if (store_ == DType::kF32) {
    std::memcpy(to, row.data(), row.size_bytes());
  } else {
    std::transform(row.begin(), row.end(), reinterpret_cast<uint16_t*>(to), f32_to_bf16);
  }
}

// The parts one under the other.
result<std::unique_ptr<ops::PackedMatrix>> Loader::matrix(std::span<const TensorRole> parts,
                                                          uint32_t layer) {
  auto made = ring_ ? matrix_by_rows(parts, layer) : packed_matrix(parts, layer);
  if (made) {
    for (const TensorRole role : parts) done(*files_.find(role, layer));
  }
  return made;
}

result<std::unique_ptr<ops::PackedMatrix>> Loader::matrix_by_rows(std::span<const TensorRole> parts,
                                                                  uint32_t layer) {
  uint64_t rows = 0, cols = 0;
  for (const TensorRole role : parts) {
    const TensorView& view = *files_.find(role, layer);
    rows += view.shape[0];
    cols = view.elements() / view.shape[0];
  }
  BATON_TRY(ops::RowMatrix made, ops_.make_rows(device_, static_cast<int64_t>(rows),
                                                static_cast<int64_t>(cols), store_));
  std::byte* to = made.rows;
  for (const TensorRole role : parts) {
    const TensorView& view = *files_.find(role, layer);
    upload(view, is_interleaved(role), to);
    to += view.elements() * size_bytes(store_);
  }
  return std::move(made.matrix);
}

result<std::unique_ptr<ops::PackedMatrix>> Loader::packed_matrix(std::span<const TensorRole> parts,
                                                                 uint32_t layer) {
  size_t elements = 0;
  for (const TensorRole role : parts) elements += files_.find(role, layer)->elements();
  if (scratch_.size() < elements * size_bytes(store_))
    scratch_.resize(elements * size_bytes(store_));
  std::vector<Tensor> sources;
  std::byte* next = scratch_.data();
  for (const TensorRole role : parts) {
    const TensorView& view = *files_.find(role, layer);
    sources.push_back(read_rows(view, is_interleaved(role), next));
    next += view.elements() * size_bytes(store_);
  }
  return ops_.pack(device_, sources, store_);
}

result<DeviceVector> Loader::vector(std::span<const TensorRole> parts, uint32_t layer) {
  std::vector<float> host;
  for (const TensorRole role : parts) {
    const TensorView& view = *files_.find(role, layer);
    std::vector<float> part(view.elements());
    formats::dequantize(view.type, view.data, part);
    digest_.add(view.name, std::array{digest_bytes(view.data)});
    for (size_t i = 0; i < part.size(); ++i) {
      host.push_back(part[is_interleaved(role) ? interleaved_row(i, config_.head_dim) : i]);
    }
    done(view);
  }
  return to_device(host, device_);
}

status Loader::load_layer(uint32_t layer, LayerWeights* w) {
  using enum TensorRole;
  BATON_TRY(w->attn_norm, vector(std::array{kAttnNorm}, layer));
  BATON_TRY(w->qkv, matrix(std::array{kQ, kK, kV}, layer));
  if (config_.attention_bias) {
    BATON_TRY(w->qkv_bias, vector(std::array{kQBias, kKBias, kVBias}, layer));
  }
  if (config_.qk_norm) {
    BATON_TRY(w->q_norm, vector(std::array{kQNorm}, layer));
    BATON_TRY(w->k_norm, vector(std::array{kKNorm}, layer));
  }
  BATON_TRY(w->o, matrix(std::array{kO}, layer));
  BATON_TRY(w->mlp_norm, vector(std::array{kMlpNorm}, layer));
  BATON_TRY(w->gate_up, matrix(std::array{kGate, kUp}, layer));
  BATON_TRY(w->down, matrix(std::array{kDown}, layer));
  return {};
}

status Loader::load_embedding(Weights* w) {
  BATON_TRY(w->head, matrix(std::array{TensorRole::kLmHead}));
  if (config_.tie_embeddings) return {};
  const TensorView& view = *files_.find(TensorRole::kEmbedding);
  const uint64_t rows = view.shape[0], cols = view.elements() / rows;
  const size_t bytes = view.elements() * size_bytes(store_);
  BATON_TRY(w->embedding_memory, device_.allocate(bytes));
  std::byte* const to = w->embedding_memory.data();
  if (ring_) {
    upload(view, false, to);
  } else {
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    read_rows(view, false, scratch_.data());
    device_.copy(*stream_, to, scratch_.data(), bytes);
    stream_->synchronize();
  }
  w->embedding = Tensor::matrix(to, store_, static_cast<int64_t>(rows), static_cast<int64_t>(cols));
  done(view);
  return {};
}

result<std::vector<float>> Loader::load_frequencies() {
  std::vector<float> factors;
  if (const TensorView* view = files_.find(TensorRole::kRopeFactors)) {
    factors.resize(view->elements());
    formats::dequantize(view->type, view->data, factors);
    digest_.add(view->name, std::array{digest_bytes(view->data)});
    done(*view);
  }
  return rope_frequencies(config_, factors);
}

status Loader::load_all(Weights* w) {
  if (ops_.make_rows != nullptr) {
    BATON_TRY(ring_, UploadRing::create(device_, *stream_));
  }
  w->layers.resize(config_.num_layers);
  for (uint32_t layer = 0; layer < config_.num_layers; ++layer) {
    BATON_CHECK_OK(load_layer(layer, &w->layers[layer]));
  }
  BATON_TRY(w->final_norm, vector(std::array{TensorRole::kFinalNorm}));
  BATON_CHECK_OK(load_embedding(w));
  BATON_TRY(w->rope_frequencies, load_frequencies());
  BATON_TRY(w->rope_device, to_device(w->rope_frequencies, device_));
  w->digest = digest_.finish(files_.fingerprint());
  return {};
}

result<Weights> Loader::load() {
  Weights w;
  const status loaded = load_all(&w);
  stream_->synchronize();  // after an error, too: copies from the ring into `w` are under way
  if (!loaded) return loaded.error();
  return w;
}

}  // namespace

result<DeviceVector> to_device(std::span<const float> values, device::Device& device) {
  BATON_TRY(device::Buffer buffer, device.allocate(values.size_bytes()));
  const auto stream = device.make_stream();
  device.copy(*stream, buffer.data(), values.data(), values.size_bytes());
  stream->synchronize();
  return DeviceVector(std::move(buffer));
}

result<Weights> load_weights(const formats::ModelFiles& files, device::Device& device,
                             const ops::Ops& ops, DType store, const Progress& progress) {
  return Loader(files, device, ops, store, progress).load();
}

}  // namespace baton::model
