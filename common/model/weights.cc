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

// The part of a tensor that is loaded.
struct Part {
  const TensorView* view = nullptr;
  bool interleaved = false;
  Range rows, cols;

  size_t elements() const { return rows.size() * cols.size(); }
  uint64_t file_cols() const { return view->elements() / view->shape[0]; }
  size_t file_row_bytes() const { return view->data.size() / view->shape[0]; }
};

class Loader {
 public:
  Loader(const formats::ModelFiles& files, device::Device& device, const ops::Ops& ops, DType store,
         const Shards& shards, const Progress& progress)
      : files_(files),
        config_(files.config()),
        shards_(shards),
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
  Part part_of(TensorRole role, uint32_t layer) const;
  void upload(const Part& part, std::byte* to);
  Tensor read_rows(const Part& part, std::byte* out);
  Range read_slices(const Part& part, uint64_t first_slice, std::span<Digest128> digests,
                    std::byte* out);
  void read_row(const Part& part, uint64_t from, std::span<float> row, std::byte* to) const;
  void add_digest(const Part& part, std::span<const Digest128> digests);
  bool is_interleaved(TensorRole role) const;
  void done(const TensorView& view);

  const formats::ModelFiles& files_;
  const formats::ModelConfig& config_;
  const Shards& shards_;
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

Part Loader::part_of(TensorRole role, uint32_t layer = 0) const {
  const TensorView& view = *files_.find(role, layer);
  Part part{.view = &view, .interleaved = is_interleaved(role)};
  part.rows = shards_.rows_of(role, view.shape[0]);
  part.cols = role == TensorRole::kEmbedding && !shards_.is_whole() ? shards_.embedding_cols()
                                                                    : Range{0, part.file_cols()};
  return part;
}

// The first rank digests all of the file, so that a model has one name whatever its degree.
void Loader::add_digest(const Part& part, std::span<const Digest128> digests) {
  if (shards_.rank() == 0) digest_.add(part.view->name, digests);
}

// [rows, cols] of store_ in `out`.
Tensor Loader::read_rows(const Part& part, std::byte* out) {
  const uint64_t slice_rows = digest_rows(part.file_row_bytes());
  std::vector<Digest128> digests((part.view->shape[0] + slice_rows - 1) / slice_rows);
  read_slices(part, 0, digests, out);
  add_digest(part, digests);
  return Tensor::matrix(out, store_, static_cast<int64_t>(part.rows.size()),
                        static_cast<int64_t>(part.cols.size()));
}

// As many slices as there is room for digests, from `first_slice` on; `out`: of the first row of
// the part among them. Returns the rows of the part that they have. A slice of the file is
// digested, and then converted from the CPU's cache.
Range Loader::read_slices(const Part& part, uint64_t first_slice, std::span<Digest128> digests,
                          std::byte* out) {
  const uint64_t rows = part.view->shape[0];
  const size_t row_bytes = part.file_row_bytes(),
               store_bytes = part.cols.size() * size_bytes(store_);
  const uint64_t slice_rows = digest_rows(row_bytes), first_row = first_slice * slice_rows;
  const uint64_t end_row = std::min(first_row + digests.size() * slice_rows, rows);
  const Range read = {std::clamp(part.rows.begin, first_row, end_row),
                      std::clamp(part.rows.end, first_row, end_row)};
  if (read.size() == 0 && shards_.rank() != 0) return read;
  pool_.parallel_for(digests.size(), [&](size_t i, unsigned thread) {
    std::vector<float>& row = row_scratch_[thread];
    row.resize(part.file_cols());
    const uint64_t first = first_row + i * slice_rows, last = std::min(first + slice_rows, rows);
    if (shards_.rank() == 0) {
      digests[i] =
          digest_bytes(part.view->data.subspan(first * row_bytes, (last - first) * row_bytes));
    }
    for (uint64_t r = std::max(first, read.begin); r < std::min(last, read.end); ++r) {
      const uint64_t from = part.interleaved ? interleaved_row(r, config_.head_dim) : r;
      read_row(part, from, row, out + (r - read.begin) * store_bytes);
    }
  });
  return read;
}

// All rows to `to` on the device, piece by piece.
void Loader::upload(const Part& part, std::byte* to) {
  const size_t store_bytes = part.cols.size() * size_bytes(store_);
  const uint64_t slice_rows = digest_rows(part.file_row_bytes());
  std::vector<Digest128> digests((part.view->shape[0] + slice_rows - 1) / slice_rows);
  const size_t piece = std::max<size_t>(UploadRing::kPieceBytes / (slice_rows * store_bytes), 1);
  for (size_t slice = 0; slice < digests.size(); slice += piece) {
    const size_t count = std::min(piece, digests.size() - slice);
    std::byte* const buffer = ring_->next();
    const Range read = read_slices(part, slice, std::span(digests).subspan(slice, count), buffer);
    if (read.size() == 0) continue;
    ring_->send(*stream_, to + (read.begin - part.rows.begin) * store_bytes,
                read.size() * store_bytes);
  }
  add_digest(part, digests);
}

// Row `from` of the file, as store_; `row` is scratch.
void Loader::read_row(const Part& part, uint64_t from, std::span<float> row, std::byte* to) const {
  const size_t row_bytes = part.file_row_bytes();
  const auto source = part.view->data.subspan(from * row_bytes, row_bytes);
  using enum formats::StorageType;
  if ((part.view->type == kBF16 && store_ == DType::kBF16) ||
      (part.view->type == kF16 && store_ == DType::kF16)) {
    std::memcpy(to, source.data() + part.cols.begin * sizeof(uint16_t),
                part.cols.size() * sizeof(uint16_t));
    return;
  }
  formats::dequantize(part.view->type, source, row);
  const auto wanted = row.subspan(part.cols.begin, part.cols.size());
  if (store_ == DType::kF32) {
    std::memcpy(to, wanted.data(), wanted.size_bytes());
  } else {
    std::transform(wanted.begin(), wanted.end(), reinterpret_cast<uint16_t*>(to),
                   store_ == DType::kF16 ? f32_to_f16 : f32_to_bf16);
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
    const Part part = part_of(role, layer);
    rows += part.rows.size();
    cols = part.cols.size();
  }
  BATON_TRY(ops::RowMatrix made, ops_.make_rows(device_, static_cast<int64_t>(rows),
                                                static_cast<int64_t>(cols), store_));
  std::byte* to = made.rows;
  for (const TensorRole role : parts) {
    const Part part = part_of(role, layer);
    upload(part, to);
    to += part.elements() * size_bytes(store_);
  }
  return std::move(made.matrix);
}

result<std::unique_ptr<ops::PackedMatrix>> Loader::packed_matrix(std::span<const TensorRole> parts,
                                                                 uint32_t layer) {
  size_t elements = 0;
  for (const TensorRole role : parts) elements += part_of(role, layer).elements();
  if (scratch_.size() < elements * size_bytes(store_))
    scratch_.resize(elements * size_bytes(store_));
  std::vector<Tensor> sources;
  std::byte* next = scratch_.data();
  for (const TensorRole role : parts) {
    const Part part = part_of(role, layer);
    sources.push_back(read_rows(part, next));
    next += part.elements() * size_bytes(store_);
  }
  return ops_.pack(device_, sources, store_);
}

result<DeviceVector> Loader::vector(std::span<const TensorRole> parts, uint32_t layer) {
  std::vector<float> host;
  for (const TensorRole role : parts) {
    const Part part = part_of(role, layer);
    std::vector<float> all(part.view->elements());
    formats::dequantize(part.view->type, part.view->data, all);
    add_digest(part, std::array{digest_bytes(part.view->data)});
    // A vector's elements are what a matrix's rows are.
    const Range own = shards_.rows_of(role, all.size());
    for (uint64_t i = own.begin; i < own.end; ++i) {
      host.push_back(all[part.interleaved ? interleaved_row(i, config_.head_dim) : i]);
    }
    done(*part.view);
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
  if (config_.tie_embeddings && shards_.is_whole()) return {};
  const Part part = part_of(TensorRole::kEmbedding);
  const size_t bytes = part.elements() * size_bytes(store_);
  BATON_TRY(w->embedding_memory, device_.allocate(bytes));
  std::byte* const to = w->embedding_memory.data();
  if (ring_) {
    upload(part, to);
  } else {
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    read_rows(part, scratch_.data());
    device_.copy(*stream_, to, scratch_.data(), bytes);
    stream_->synchronize();
  }
  w->embedding = Tensor::matrix(to, store_, static_cast<int64_t>(part.rows.size()),
                                static_cast<int64_t>(part.cols.size()));
  if (!config_.tie_embeddings) done(*part.view);
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
  if (shards_.rank() == 0) w->digest = digest_.finish(files_.fingerprint());
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
                             const ops::Ops& ops, DType store, const Shards& shards,
                             const Progress& progress) {
  return Loader(files, device, ops, store, shards, progress).load();
}

}  // namespace baton::model
