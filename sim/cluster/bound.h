#pragma once

#include <cstdint>
#include <vector>

#include "sim/cluster/cluster_spec.h"
#include "sim/cluster/measures.h"
#include "sim/cluster/traffic.h"

// How many requests anybody could have served in time, who knew beforehand when which ones would
// come. Pure.
//
// What a request costs at least. A step takes f + r·rows + b·max(0, rows - ridge) and the attention
// of its rows (common/latency/profile.h). For any λ in [0, min(b, f/ridge)],
//   b·max(0, rows - ridge) >= λ·(rows - ridge),
// so S steps take at least (f - λ·ridge)·S, and (r + λ) and its attention for each of their rows.
// The rows are those of prompts and, for each token after a request's first, one. Of S two things
// are known:
// - A step has no more rows than a step may: S >= rows / most.
// - Where request i meets its TPOT T, its n_i - 1 steps take no more than T·(n_i - 1) together. Let
//   l_i be what a row of it adds to a step at least, and L_s the sum of these over the rows of step
//   s, which takes f + L_s or more. The sum over i of l_i times its steps' times gives
//     Σ L_s·(f + L_s) <= T·Σ L_s,
//   and as Σ L_s² >= (Σ L_s)² / S (Cauchy and Schwarz), S >= Σ_i (n_i - 1)·l_i / (T - f).
// A pool of prefill workers is held to the first, all others to the second. Either way the time
// that is used is at least a sum over requests: c_i for its prompt and d_i for its tokens.
//
// How many fit. Let a second of a worker of group g have a price, p_g until some time E and 0 from
// then on. The prompt of a request that is met is computed between its arrival a_i and a_i + TTFT,
// its tokens by a_i + TTFT + T·(n_i - 1); where such a span ends by E, what was done in it was paid
// for. With x_i, what the request pays at the group that is cheapest for it, the requests M that
// are met pay no more than all that is there to be bought:
//   |M| = Σ_M x_i + Σ_M (1 - x_i) <= E·Σ_g p_g·workers_g + Σ_i max(0, 1 - x_i).
// That holds for all prices, E and λ (weak duality); the least that a search finds is taken.
//
// Left out, so that the bound is rather too high: hand-offs, messages, room for KV, that the steps
// of a request follow each other, prompts that share a prefix with others (they cost nothing). A
// prompt that no idle worker computes in time meets nothing. Assumed: steps take the profile's
// time, and a request decodes in one group. Each prompt may be computed where its group's role
// says, on decode workers up to most_local_tokens.
namespace baton::sim {

struct BoundOptions {
  Slo slo;
  uint32_t most_local_tokens = 0;
  // False: for who does not know how many tokens an answer will have, and breaks none off. Each is
  // taken to have the mean; the bound then holds for the mean over many runs, if lengths are drawn
  // independently of prompts and times.
  bool known_outputs = true;
};

struct Bound {
  double requests = 0;  // that meet both targets, at most
  std::vector<double>
      costs;  // [requests]: x_i at those prices; who pays more than 1 is not worth it
};

Bound most_met(const ClusterSpec& spec, const Traffic& traffic, const BoundOptions& options);

}  // namespace baton::sim
