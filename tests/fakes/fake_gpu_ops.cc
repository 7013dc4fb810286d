#include <algorithm>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/kvcache/digest.h"
#include "common/ops/cpu/cpu_ops.h"
#include "tests/fakes/fake_gpu.h"

namespace baton::ops {
namespace {

using device::CpuStream;
using device::fake_gpu_dies;
using device::FakeGpuMemory;
using device::FakeStream;

const Ops& cpu() {
  static const Ops table = cpu_ops();
  return table;
}

void must(bool ok, const char* otherwise) {
  if (!ok) fake_gpu_dies(otherwise);
}

FakeStream& fake(Stream& stream) { return static_cast<FakeStream&>(stream); }

// Rows in the device's memory, which the CPU has packed when the first operation reads them.
class FakeMatrix final : public PackedMatrix {
 public:
  FakeMatrix(device::Buffer rows, int64_t n, int64_t k, DType store)
      : rows_(std::move(rows)), n_(n), k_(k), store_(store) {}

  int64_t n() const override { return n_; }
  int64_t k() const override { return k_; }
  size_t bytes() const override { return rows_.bytes(); }
  const PackedMatrix& packed(const FakeGpuMemory& memory) const {
    std::call_once(once_, [&] {
      const Tensor rows = Tensor::matrix(memory.real(rows_.data(), rows_.bytes()), store_, n_, k_);
      packed_ = cpu().pack(*device::make_cpu_device(1), {&rows, 1}, store_).value();
    });
    return *packed_;
  }

 private:
  const device::Buffer rows_;
  const int64_t n_, k_;
  const DType store_;
  mutable std::once_flag once_;
  mutable std::unique_ptr<PackedMatrix> packed_;
};

// Arguments that do not say by themselves how much memory they name.
struct Floats {
  const float* data;  // null stays null
  int64_t count;
};
template <class T>
struct Below {  // each of them is, when the operation runs
  std::span<T> values;
  int64_t limit;
};
struct Matrix {
  const PackedMatrix* matrix;
};
struct Drawn {
  const TokenId* tokens;
  std::span<const TokenId> ids;  // say which
};

// What an argument stands for: the same with addresses that lead somewhere. Dies if one does not.
struct Real {
  const FakeGpuMemory& memory;
  bool runs;  // else it is being enqueued, and contents mean nothing yet

  template <class T>
  T* at(T* data, size_t count) const {
    return static_cast<T*>(memory.real(data, count * sizeof(T)));
  }

  template <class T>
  T operator()(const T& value) const {
    return value;
  }
  template <class T>
  std::span<T> operator()(const std::span<T>& s) const {
    return {at(s.data(), s.size()), s.size()};
  }
  Tensor operator()(const Tensor& t) const {
    Tensor real = t;
    const int64_t elements = t.rows == 0 ? 0 : (t.rows - 1) * t.row_stride + t.cols;
    real.data = memory.real(t.data, static_cast<size_t>(elements) * size_bytes(t.dtype));
    return real;
  }
  const float* operator()(const Floats& f) const {
    return f.data == nullptr ? nullptr : at(f.data, static_cast<size_t>(f.count));
  }
  template <class T>
  std::span<T> operator()(const Below<T>& b) const {
    const std::span<T> values = (*this)(b.values);
    if (runs) {
      for (const T v : values) {
        must(static_cast<int64_t>(v) >= 0 && static_cast<int64_t>(v) < b.limit,
             "an id or row that there is not");
      }
    }
    return values;
  }
  const TokenId* operator()(const Drawn& d) const {
    TokenId least = -1;
    if (runs) {
      for (const TokenId id : (*this)(d.ids)) least = std::min(least, id);
    }
    return at(d.tokens, static_cast<size_t>(-least));
  }
  const PackedMatrix& operator()(const Matrix& m) const {
    const auto* rows = dynamic_cast<const FakeMatrix*>(m.matrix);
    return runs && rows != nullptr ? rows->packed(memory) : *m.matrix;
  }
  AttentionPartials operator()(const AttentionPartials& p) const {
    return {(*this)(p.records), p.first_tile, p.num_tiles};
  }
};

template <auto kOp, class... Args>
void enqueue(Stream& stream, const Args&... args) {
  FakeStream& s = fake(stream);
  (Real{s.memory(), false}(args), ...);  // a wrong address dies where its caller is to be seen
  s.enqueue([&memory = s.memory(), args...](CpuStream& on) {
    (cpu().*kOp)(on, Real{memory, true}(args)...);
  });
}

void matmul(Stream& s, const Tensor& x, const PackedMatrix& w, const float* bias, const Tensor& out,
            bool accumulate) {
  enqueue<&Ops::matmul>(s, x, Matrix{&w}, Floats{bias, w.n()}, out, accumulate);
}
void resolve_drawn(Stream& s, std::span<TokenId> ids, const TokenId* drawn) {
  enqueue<&Ops::resolve_drawn>(s, ids, Drawn{drawn, ids});
}
void embed(Stream& s, std::span<const TokenId> ids, const Tensor& table, const Tensor& out) {
  enqueue<&Ops::embed>(s, Below<const TokenId>{ids, table.rows}, table, out);
}
void embed_packed(Stream& s, std::span<const TokenId> ids, const PackedMatrix& table,
                  const Tensor& out) {
  enqueue<&Ops::embed_packed>(s, Below<const TokenId>{ids, table.n()}, Matrix{&table}, out);
}
void rms_norm(Stream& s, const Tensor& x, const float* weight, float eps, const Tensor& out) {
  enqueue<&Ops::rms_norm>(s, x, Floats{weight, x.cols}, eps, out);
}
void rope_angles(Stream& s, std::span<const uint32_t> positions, std::span<const float> inv_freq,
                 const Tensor& cos, const Tensor& sin) {
  enqueue<&Ops::rope_angles>(s, positions, inv_freq, cos, sin);
}
void silu_mul(Stream& s, const Tensor& gate_up, const Tensor& out) {
  enqueue<&Ops::silu_mul>(s, gate_up, out);
}
void gather_rows(Stream& s, const Tensor& x, std::span<const uint32_t> rows, const Tensor& out) {
  enqueue<&Ops::gather_rows>(s, x, Below<const uint32_t>{rows, x.rows}, out);
}
void join_columns(Stream& s, std::span<const Tensor> parts, const Tensor& out) {
  FakeStream& stream = fake(s);
  const Real now{stream.memory(), false};
  for (const Tensor& part : parts) now(part);
  stream.enqueue([&memory = stream.memory(), out,
                  parts = std::vector<Tensor>(parts.begin(), parts.end())](CpuStream& cpu_stream) {
    const Real real{memory, true};
    std::vector<Tensor> there;
    for (const Tensor& part : parts) there.push_back(real(part));
    cpu().join_columns(cpu_stream, there, real(out));
  });
}
void score(Stream& s, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
           std::span<SampleResult> results) {
  fake(s).must_not_capture("score");
  enqueue<&Ops::score>(s, logits, Below<const TokenId>{tokens, logits.cols}, top, results);
}

PagedKv real_kv(const Real& real, const PagedKv& kv) {
  PagedKv r = kv;
  r.base = real.at(kv.base, 2 * kv.plane_stride);
  return r;
}

// The sequences as the device has them; of the host's list it knows the length alone.
class DeviceSequences {
 public:
  DeviceSequences(const Real& real, const Sequences& given, const PagedKv& kv, int64_t rows) {
    const auto on_device = real(std::span(given.device, given.host.size()));
    if (!real.runs) return;
    for (SequenceRows s : on_device) {
      must(int64_t{s.first_row} + s.num_rows <= rows, "a sequence of rows that there are not");
      const uint32_t seen = s.position + s.num_rows;
      if (s.num_rows > 0) {
        must(seen <= given.max_tokens, "a sequence that is longer than max_tokens");
        const uint32_t blocks = (seen + kv.block_tokens - 1) / kv.block_tokens;
        s.block_table = real.at(s.block_table, blocks);
        for (uint32_t b = 0; b < blocks; ++b) {
          real.at(kv.base + s.block_table[b].value * kv.block_stride, 2 * kv.plane_stride);
        }
      }
      all_.push_back(s);
    }
  }
  Sequences get(const Sequences& given) const { return {all_, nullptr, given.max_tokens}; }

 private:
  std::vector<SequenceRows> all_;
};

void rope_and_write_kv(Stream& stream, const RopeKvArgs& args) {
  const auto run = [args](const Real& real, CpuStream* on) {
    RopeKvArgs a = args;
    for (Tensor* t : {&a.qkv, &a.cos, &a.sin, &a.q_out}) *t = real(*t);
    a.q_norm = real(Floats{a.q_norm, a.kv.head_dim});
    a.k_norm = real(Floats{a.k_norm, a.kv.head_dim});
    a.kv = real_kv(real, args.kv);
    const DeviceSequences sequences(real, args.sequences, args.kv, args.qkv.rows);
    a.sequences = sequences.get(args.sequences);
    if (on != nullptr) cpu().rope_and_write_kv(*on, a);
  };
  FakeStream& s = fake(stream);
  run({s.memory(), false}, nullptr);
  s.enqueue([run, &memory = s.memory()](CpuStream& on) { run({memory, true}, &on); });
}

// `compute` (the CPU's stream, arguments) is called when it runs.
template <class Compute>
void enqueue_attention(Stream& stream, const AttentionArgs& args, const Compute& compute) {
  const auto run = [args, compute](const Real& real, CpuStream* on) {
    AttentionArgs a = args;
    a.q = real(args.q);
    a.out = real(args.out);
    a.kv = real_kv(real, args.kv);
    const DeviceSequences sequences(real, args.sequences, args.kv, args.q.rows);
    a.sequences = sequences.get(args.sequences);
    if (on != nullptr) compute(*on, a);
  };
  FakeStream& s = fake(stream);
  run({s.memory(), false}, nullptr);
  s.enqueue([run, &memory = s.memory()](CpuStream& on) { run({memory, true}, &on); });
}

void attention(Stream& s, const AttentionArgs& args) {
  enqueue_attention(s, args, [](CpuStream& on, const AttentionArgs& a) { cpu().attention(on, a); });
}

void attention_partials(Stream& stream, const AttentionArgs& args, const AttentionPartials& parts) {
  enqueue_attention(stream, args,
                    [parts, &memory = fake(stream).memory()](CpuStream& on, const auto& a) {
                      cpu().attention_partials(on, a, Real{memory, true}(parts));
                    });
}

void merge_partials(Stream& stream, std::span<const AttentionPartials> parts, uint32_t num_heads,
                    const Tensor& out) {
  FakeStream& s = fake(stream);
  const std::vector<AttentionPartials> held(parts.begin(), parts.end());
  s.enqueue([held, num_heads, out, &memory = s.memory()](CpuStream& on) {
    const Real real{memory, true};
    std::vector<AttentionPartials> all;
    for (const AttentionPartials& p : held) all.push_back(real(p));
    cpu().merge_partials(on, all, num_heads, real(out));
  });
}

// A row with all it refers to, as it is when the operation is enqueued.
struct HeldRow {
  explicit HeldRow(const SampleRow& r)
      : row(r),
        params(*r.params),
        logit_bias(r.logit_bias.begin(), r.logit_bias.end()),
        counts(r.counts.begin(), r.counts.end()),
        banned(r.banned_until_min.begin(), r.banned_until_min.end()) {}

  SampleRow get(const Real& real) const {
    SampleRow r = row;
    r.params = &params;
    r.logit_bias = logit_bias;
    r.counts = counts;
    r.banned_until_min = banned;
    if (r.drawn != nullptr) r.drawn = real.at(r.drawn, 1);
    return r;
  }

  SampleRow row;
  SamplingParams params;
  std::vector<LogitBias> logit_bias;
  std::vector<TokenCount> counts;
  std::vector<TokenId> banned;
};

void sample(Stream& stream, const Tensor& logits, std::span<const SampleRow> rows,
            std::span<SampleResult> results) {
  FakeStream& s = fake(stream);
  s.must_not_capture("sample");
  ++s.gpu().counts().samples;
  const Real now{s.memory(), false};
  now(logits), now(results);
  std::vector<HeldRow> held;
  for (const SampleRow& row : rows) {
    must(row.logits_row < logits.rows, "a row of logits that there is not");
    must(row.drawn == nullptr || s.memory().is_device(row.drawn), "drawn tokens in host memory");
    held.emplace_back(row);
  }
  s.enqueue([logits, results, held, &memory = s.memory()](CpuStream& on) {
    const Real real{memory, true};
    std::vector<SampleRow> all;
    for (const HeldRow& row : held) all.push_back(row.get(real));
    cpu().sample(on, real(logits), all, real(results));
  });
}

kvcache::KvLayout layout_of(const ExportKvArgs& args) {
  const PagedKv& kv = args.kv;
  auto layout = kvcache::KvLayout::full_kv(args.layer + 1, kv.num_kv_heads, kv.head_dim, kv.dtype,
                                           kv.block_tokens);
  layout.head_begin = args.head_begin;
  must(kv.plane_stride == layout.plane_bytes() && kv.head_stride == layout.head_bytes() &&
           kv.token_stride == layout.vector_bytes(),
       "a cache that is not laid out as digests go by");
  return layout;
}

template <class Args>
size_t stride_of(const Args& args) {
  return args.mirror_stride == 0 ? args.kv.block_stride : args.mirror_stride;
}

void export_block(const ExportKvArgs& args, const Real& real, const KvCopyBlock& block,
                  uint64_t* digest) {
  const PagedKv& kv = args.kv;
  must(block.num_tokens <= kv.block_tokens, "more tokens than a block has");
  const size_t layer_bytes = 2 * kv.plane_stride;
  const std::byte* from = real.at(kv.base + block.from * kv.block_stride, layer_bytes);
  const std::byte* digested = from;
  if (args.mirror != nullptr) {
    std::byte* to = real.at(args.mirror + block.to * stride_of(args), layer_bytes);
    for (size_t head = 0; head < 2 * kv.num_kv_heads; ++head) {  // K's, then V's
      const size_t at = head * kv.head_stride;
      std::memcpy(to + at, from + at, block.num_tokens * kv.token_stride);
    }
    digested = to;
  }
  *real.at(digest, 1) = kvcache::digest_layer(layout_of(args), digested - args.layer * layer_bytes,
                                              args.layer, block.position, block.num_tokens);
}

void export_kv(Stream& stream, const ExportKvArgs& args) {
  FakeStream& s = fake(stream);
  ++s.gpu().counts().exports;
  const Real now{s.memory(), false};
  now(args.blocks), now.at(args.digests, args.blocks.size());
  must(args.mirror == nullptr || s.memory().is_device(args.mirror) == args.to_device,
       "a mirror in another memory than was said");
  s.enqueue([args, &s](CpuStream&) {
    s.gpu().exporting();
    const Real real{s.memory(), true};
    uint64_t* digest = args.digests;
    for (const KvCopyBlock& block : real(args.blocks)) export_block(args, real, block, digest++);
  });
}

void import_kv(Stream& stream, const ImportKvArgs& args) {
  FakeStream& s = fake(stream);
  ++s.gpu().counts().imports;
  Real{s.memory(), false}(args.blocks);
  must(!s.memory().is_device(args.mirror), "a mirror in the device's memory");
  s.enqueue([args, &memory = s.memory()](CpuStream&) {
    const Real real{memory, true};
    for (const KvCopyBlock& block : real(args.blocks)) {
      const size_t stride = args.kv.block_stride;
      std::memcpy(real.at(args.kv.base + block.to * stride, args.block_bytes),
                  real.at(args.mirror + block.from * stride_of(args), args.block_bytes),
                  args.block_bytes);
    }
  });
}

result<RowMatrix> make_rows(device::Device& gpu, int64_t n, int64_t k, DType store) {
  BATON_TRY(device::Buffer memory, gpu.allocate(static_cast<size_t>(n * k) * size_bytes(store)));
  std::byte* const rows = memory.data();
  return RowMatrix{std::make_unique<FakeMatrix>(std::move(memory), n, k, store), rows};
}

// Packed matrices stay the CPU's: the host cannot see where they lie.
result<std::unique_ptr<PackedMatrix>> pack(device::Device&, std::span<const Tensor> parts,
                                           DType store) {
  return cpu().pack(*device::make_cpu_device(1), parts, store);
}

}  // namespace

Ops fake_gpu_ops() {
  return {.backend = "fake-gpu",
          .numerics = cpu().numerics,
          .activation = DType::kF32,
          .bf16_input = cpu().bf16_input,
          .pack = pack,
          .make_rows = make_rows,
          .matmul = matmul,
          .resolve_drawn = resolve_drawn,
          .embed = embed,
          .embed_packed = embed_packed,
          .rms_norm = rms_norm,
          .rope_angles = rope_angles,
          .rope_and_write_kv = rope_and_write_kv,
          .attention = attention,
          .attention_partials = attention_partials,
          .merge_partials = merge_partials,
          .silu_mul = silu_mul,
          .gather_rows = gather_rows,
          .join_columns = join_columns,
          .sample = sample,
          .score = score,
          .export_kv = export_kv,
          .import_kv = import_kv};
}

}  // namespace baton::ops
