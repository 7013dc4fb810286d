#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/device/device.h"
#include "common/device/tensor.h"

// The table of operations a model is made of. Every backend fills one table; the same tests run on
// all. An operation enqueues on its stream and returns; it allocates nothing, checks shapes by
// assert (they are the model's, never the network's), and cannot fail.
//
// "Same tokens" (docs/numerics.md): the result for a row depends on that row's inputs alone, never
// on how many rows stand beside it, on how a prompt was chunked or on the number of threads.
namespace baton::ops {

using device::Stream;
using device::Tensor;

// A weight matrix [n, k] in the backend's own arrangement; made once at load.
class PackedMatrix {
 public:
  virtual ~PackedMatrix() = default;
  virtual int64_t n() const = 0;  // output features
  virtual int64_t k() const = 0;  // input features
  virtual size_t bytes() const = 0;
};

// A matrix whose rows are brought in one after the other.
struct RowMatrix {
  std::unique_ptr<PackedMatrix> matrix;
  std::byte* rows = nullptr;  // [n, k] dense, in the device's memory; the matrix owns it
};

// Where the rows of one sequence stand in a batch. Rows are its tokens at positions
// [position, position + num_rows); KV for positions before that is in the cache already.
struct SequenceRows {
  uint32_t first_row = 0;
  uint32_t num_rows = 0;
  uint32_t position = 0;
  const BlockId* block_table = nullptr;  // covers at least position + num_rows tokens
};

// The sequences of a batch, in the order of their rows, as both sides know them. A sequence of no
// rows is skipped; rows that belong to no sequence are computed, and mean nothing.
struct Sequences {
  std::span<const SequenceRows> host;    // for the host
  const SequenceRows* device = nullptr;  // the same where the device reads; so are block tables
  // At least position + num_rows of each: captured work may be launched again up to this.
  uint32_t max_tokens = 0;

  // For a device that reads host memory.
  static Sequences on_host(std::span<const SequenceRows> all) {
    Sequences s{all, all.data(), 0};
    for (const SequenceRows& r : all)
      s.max_tokens = std::max(s.max_tokens, r.position + r.num_rows);
    return s;
  }
};

// One layer's half of a paged cache, by strides in bytes:
// address(block, plane, head, token) = base + block * block_stride + plane * plane_stride
//                                    + head * head_stride + token * token_stride
struct PagedKv {
  std::byte* base = nullptr;  // of the layer
  DType dtype = DType::kBF16;
  uint32_t block_tokens = 0;  // divides 256, at least 16
  uint32_t num_kv_heads = 0;
  uint32_t head_dim = 0;  // a multiple of 16, at most 512
  size_t block_stride = 0;
  size_t plane_stride = 0;  // K is plane 0, V is plane 1
  size_t head_stride = 0;
  size_t token_stride = 0;
};

struct RopeKvArgs {
  Tensor qkv;                     // [rows, (heads + 2 * kv_heads) * head_dim], q | k | v
  Tensor cos, sin;                // f32 [rows, head_dim / 2], from rope_angles
  const float* q_norm = nullptr;  // [head_dim] or null (Qwen3: RMSNorm over each head before RoPE)
  const float* k_norm = nullptr;
  float norm_eps = 0;
  uint32_t num_heads = 0;
  Sequences sequences;
  PagedKv kv;    // K and V of these rows are written here, rounded to its dtype
  Tensor q_out;  // [rows, heads * head_dim], normed and rotated
};

struct AttentionArgs {
  Tensor q;    // [rows, heads * head_dim]
  PagedKv kv;  // already holds K and V of these rows
  uint32_t num_heads = 0;
  float scale = 0;  // 1 / sqrt(head_dim)
  Sequences sequences;
  Tensor out;  // [rows, heads * head_dim]
};

// Attention over absolute tiles of this many tokens, merged in tile order, in prefill and decode.
inline constexpr uint32_t kAttentionTile = 256;

// What attention is merged from. For each row, head and tile of [first_tile, first_tile +
// num_tiles) one record of head_dim + 2 floats: the output before division, the maximum of the
// scaled scores, the sum of their exponentials. The sum of a tile that the row does not see is 0.
struct AttentionPartials {
  Tensor records;  // f32 [rows, heads * num_tiles * (head_dim + 2)]
  uint32_t first_tile = 0;
  uint32_t num_tiles = 0;
};

// Tokens [0, num_tokens) of one block, from one cache to another of the same strides.
struct KvCopyBlock {
  uint32_t from = 0, to = 0;  // blocks
  uint32_t position = 0;      // of token 0 in its sequence: digests depend on it
  uint32_t num_tokens = 0;
};

// One layer of some blocks, from a cache of a device to a mirror of it in host memory, or to this
// device's cache; or to nowhere, for the digests alone.
struct ExportKvArgs {
  PagedKv kv;                           // the layer
  uint32_t layer = 0, head_begin = 0;   // digests depend on them
  std::span<const KvCopyBlock> blocks;  // Device::allocate_host's memory
  // Of the same layer: locked by Device::lock_host, or with `to_device` the device's own. Null:
  // nothing is copied. Digests are of what is written there, or of what was read.
  std::byte* mirror = nullptr;
  size_t mirror_stride = 0;  // bytes from a block to the next; 0: the cache's
  bool to_device = false;
  uint64_t* digests = nullptr;  // [blocks], as kvcache/digest.h defines them; host memory
};

// All layers of some blocks, whole, from the mirror to the device's cache.
struct ImportKvArgs {
  PagedKv kv;  // layer 0; its layers are one run in each block
  size_t block_bytes = 0;
  std::span<const KvCopyBlock> blocks;  // Device::allocate_host's memory
  const std::byte* mirror = nullptr;
  size_t mirror_stride = 0;  // likewise
};

struct LogitBias {
  TokenId token;
  float bias;
};

// How one token is drawn, in this order (that of vLLM): log-probabilities are taken; logit_bias;
// repetition, then frequency and presence penalty; the ban until min_tokens; greedy choice, or:
// temperature; min_p (drop what is less likely than min_p times the likeliest); top_k (ties to the
// lowest id); top_p (the likeliest that first sum to top_p of what top_k left); the draw.
// The draw inverts the cumulative distribution over the candidates, likeliest first, ties to the
// lowest id, with Philox4x32-10 keyed by (seed, choice, position, draw).
// NaN counts as minus infinity; where no finite logit is left the lowest id of the largest wins.
struct SamplingParams {
  float temperature = 1.0f;  // below 1e-5: greedy (ties to the lowest id)
  uint32_t top_k = 0;        // 0: off
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;  // over prompt and output, as in CTRL (Keskar et al. 2019)
  float presence_penalty = 0.0f;    // over output, as OpenAI defines it
  float frequency_penalty = 0.0f;   // over output
  uint64_t seed = 0;
  uint32_t min_tokens = 0;  // before so many output tokens, banned_until_min may not be chosen
  bool ignore_eos = false;
  uint32_t logprobs = 0;  // how many top alternatives to report; see want_logprobs
  bool want_logprobs = false;
};

inline constexpr uint32_t kMaxTopLogprobs = 20;

// How often a token stands in prompt and output of one sequence.
struct TokenCount {
  TokenId token;
  uint32_t in_prompt;
  uint32_t in_output;
};

// One row to sample from, for the host.
struct SampleRow {
  uint32_t logits_row = 0;
  const SamplingParams* params = nullptr;
  std::span<const LogitBias> logit_bias;
  std::span<const TokenCount> counts;         // any order, each token once
  std::span<const TokenId> banned_until_min;  // EOS and stop ids
  uint32_t choice = 0;                        // index of n
  uint32_t position = 0;                      // of the token to be drawn, in the whole sequence
  uint32_t output_tokens = 0;                 // drawn before this one
  TokenId* drawn = nullptr;  // gets the token, too, where the device writes; null: nobody asks
};

// What a log-probability is at least: minus infinity and NaN are reported as this.
inline constexpr float kMinLogprob = -9999.0f;

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
};

// Log-probabilities are of the model's distribution: log-softmax of the raw logits, before bias,
// penalties, temperature and filters, as the OpenAI API and vLLM report them.
struct SampleResult {
  TokenId token = 0;
  float logprob = 0;  // set if want_logprobs
  uint32_t num_top = 0;
  TokenLogprob top[kMaxTopLogprobs];  // descending, ties to the lowest id
};

struct Ops {
  std::string backend;  // "cpu", "cuda"
  std::string
      numerics;  // fingerprint of the kernels' arithmetic: workers of one value agree bit for bit
  DType activation = DType::kF32;  // kF16: so are weights and caches, and nothing is bf16
  // What matmul by bf16 weights also takes, and rms_norm, attention and silu_mul also write,
  // rounded to nearest even: the same bits come out, for fewer bytes.
  DType bf16_input = activation;

  // Packs row blocks, one under the other, into one matrix: [sum n_i, k]. Sources are f32 or the
  // half that is computed in, host memory, freed by the caller afterwards. `store`: the element
  // type kept (either).
  result<std::unique_ptr<PackedMatrix>> (*pack)(device::Device&, std::span<const Tensor> parts,
                                                DType store) = nullptr;
  // Room for a matrix [n, k] of `store` elements, for a loader that copies rows to the device as
  // they come. Null where the backend arranges rows in its own way: pack() then.
  result<RowMatrix> (*make_rows)(device::Device&, int64_t n, int64_t k, DType store) = nullptr;
  // out[m, n] = x[m, k] * w[n, k]^T (+ bias[n]) (+ out, if accumulate).
  // Moves n*k weights once for m up to a few tens of rows (bandwidth's roof), then 2*m*n*k FLOP.
  void (*matmul)(Stream&, const Tensor& x, const PackedMatrix& w, const float* bias,
                 const Tensor& out, bool accumulate) = nullptr;
  // ids[i] = drawn[-1 - ids[i]] where it is below 0: a token that the host has not seen yet.
  void (*resolve_drawn)(Stream&, std::span<TokenId> ids, const TokenId* drawn) = nullptr;
  // out[i] = table row ids[i]; table is [vocab, hidden], f32 or a half. ids are checked by
  // the caller.
  void (*embed)(Stream&, std::span<const TokenId> ids, const Tensor& table,
                const Tensor& out) = nullptr;
  // As embed, from a packed matrix (tied embeddings keep one copy).
  void (*embed_packed)(Stream&, std::span<const TokenId> ids, const PackedMatrix& table,
                       const Tensor& out) = nullptr;
  // out = x / sqrt(mean(x^2) + eps) * weight, row by row (Zhang & Sennrich 2019).
  void (*rms_norm)(Stream&, const Tensor& x, const float* weight, float eps,
                   const Tensor& out) = nullptr;
  // cos, sin [rows, head_dim/2] of position * inv_freq (Su et al. 2021).
  void (*rope_angles)(Stream&, std::span<const uint32_t> positions, std::span<const float> inv_freq,
                      const Tensor& cos, const Tensor& sin) = nullptr;
  // Head norms where given, rotation of halves (x[i], x[i + d/2]), K and V into the cache.
  void (*rope_and_write_kv)(Stream&, const RopeKvArgs&) = nullptr;
  // Causal attention of the rows over everything before and including themselves.
  void (*attention)(Stream&, const AttentionArgs&) = nullptr;
  // The same over some tiles only, not merged; args.out is not used. Merged in tile order the
  // partials give attention's result bit for bit, so one request can be spread over workers.
  void (*attention_partials)(Stream&, const AttentionArgs&, const AttentionPartials&) = nullptr;
  // out [rows, heads * head_dim] from the parts of all tiles, given in tile order.
  void (*merge_partials)(Stream&, std::span<const AttentionPartials> parts, uint32_t num_heads,
                         const Tensor& out) = nullptr;
  // out[m, i] = silu(gate_up[m, i]) * gate_up[m, inter + i] (Shazeer 2020).
  void (*silu_mul)(Stream&, const Tensor& gate_up, const Tensor& out) = nullptr;
  // out[i] = x[rows[i]].
  void (*gather_rows)(Stream&, const Tensor& x, std::span<const uint32_t> rows,
                      const Tensor& out) = nullptr;
  // out [rows, sum of cols] = the parts [rows, cols], of any type, side by side; at most 64. Null
  // where there is no tensor parallelism.
  void (*join_columns)(Stream&, std::span<const Tensor> parts, const Tensor& out) = nullptr;
  // One token for each row; results[i] belongs to rows[i] and is there once the stream has passed.
  // `logits` [r, vocab] f32 is scratch afterwards. `results`: Device::allocate_host's memory.
  void (*sample)(Stream&, const Tensor& logits, std::span<const SampleRow> rows,
                 std::span<SampleResult> results) = nullptr;
  // results[i].logprob/top for given tokens (prompt log-probabilities); `logits` stays intact.
  // `tokens` and `results`: Device::allocate_host's memory.
  void (*score)(Stream&, const Tensor& logits, std::span<const TokenId> tokens, uint32_t top,
                std::span<SampleResult> results) = nullptr;
  // Null where DeviceInfo::host_addressable: the cache is its own mirror.
  void (*export_kv)(Stream&, const ExportKvArgs&) = nullptr;
  void (*import_kv)(Stream&, const ImportKvArgs&) = nullptr;
};

}  // namespace baton::ops
