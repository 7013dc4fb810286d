#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "router/placement/estimate.h"
#include "router/placement/margin.h"
#include "router/placement/prefix_map.h"
#include "router/placement/worker_pool.h"

namespace baton::router {

// Where a leg of a request is served: prefill and decode, or twice the same worker: a mixed one, a
// decode worker that computes a short prompt itself, or a prefill worker that draws the only token.
struct Placement {
  WorkerId prefill;
  WorkerId decode;
  bool mixed() const { return prefill == decode; }
};

// How a worker is chosen among those that have room. Equals take turns.
enum class Policy : uint8_t {
  kRoundRobin,
  kLeastLoaded,  // the shortest queue of prompts, the emptiest batch (join the shortest queue)
  kPowerOfTwo,   // the less loaded of two drawn at random (Mitzenmacher 2001)
  kPrefix,       // who holds most of the prompt, unless its load is out of balance (as SGLang's)
  kKvCost,       // blocks to compute and blocks in use, weighed (as NVIDIA Dynamo's KV router)
  kGoodput,      // the pair that keeps most promises, its own and those already made
};
inline constexpr std::string_view kPolicyNames[] = {"round_robin", "least_loaded", "power_of_two",
                                                    "prefix",      "kv_cost",      "goodput"};
result<Policy> parse_policy(std::string_view name);
inline std::string_view name_of(Policy policy) { return kPolicyNames[static_cast<size_t>(policy)]; }

// By what a request with targets is admitted, and when. Mooncake (section 7 of its paper) compares
// the three; the servers have the first, and the simulator the others to compare it with.
enum class AdmitBy : uint8_t {
  kForeseen,  // when it comes, by what it will find
  kNow,       // when it comes, by what decodes now: who still waits for its prompt is not seen
  kAtDecode,  // TTFT when it comes; TPOT when its prompt is computed, by what decodes then
};
inline constexpr std::string_view kAdmitByNames[] = {"foreseen", "now", "at-decode"};

struct PlacementOptions {
  Policy policy = Policy::kGoodput;
  bool admission = true;  // refuse what would miss its targets
  AdmitBy admit_by = AdmitBy::kForeseen;
  bool predict = true;        // go by what will run when a request joins; else by what runs now
  double overlap_weight = 1;  // of kKvCost: a block to compute against one in use
  // A prompt with more tokens to compute goes to a decode worker only to be decoded.
  uint32_t most_local_tokens = 512;
  std::vector<SloClass> classes = {{.name = "default", .target = {}}};
  uint64_t seed = 1;
};

struct PlacementQuery {
  std::string_view model;
  RequestShape shape;
  SloTarget target;
  TimePoint received;  // what TTFT counts from
  bool best_effort = false;
  std::span<const PrefixMap::Match> matches = {};
  SetId set = {};         // if set: workers of no other
  WorkerId prefill = {};  // if set: pairs with this one only, whatever else it is doing
  WorkerId avoid = {};    // taken only if nothing else can serve (it failed this request before)
  TimePoint now;
  uint64_t turn = 0;  // equals among the best take turns by it
  // Of pairs whose decode worker is full: its KV will be parked on the prefill worker. No mixed
  // worker then, which has a queue of its own.
  bool park = false;
  // It ends with its first token, or before: nothing is handed over, and nobody need read it.
  bool ends_at_first = false;
  // Full workers too: what it would find, if it waited for them.
  bool ignore_room = false;

  // Tokens of it that were sent to this worker before.
  uint32_t matched_on(WorkerId worker) const {
    const auto it = std::ranges::find(matches, worker, &PrefixMap::Match::worker);
    return it == matches.end() ? 0 : it->tokens;
  }
};

// A choice, and what is expected of it. Seconds.
struct Decision {
  Placement placement;
  uint32_t matched = 0;  // tokens that were sent to its prefill worker before
  uint32_t cached = 0;   // of these, as many as it is thought to hold still
  double prompt = 0;     // of the prompt's steps alone
  double ttft = 0;       // from `received`
  double tpot = 0;
  bool known = false;   // by the workers' own costs; else only good for order
  bool in_time = true;  // meets its targets
  uint32_t harmed = 0;  // promises made before that it would break
};

// Chooses workers. Pure: draws by a seed, knows no clock. One thread.
class Placer {
 public:
  explicit Placer(PlacementOptions options);

  // Nothing if nobody has room.
  std::optional<Decision> place(const WorkerPool& pool, const PlacementQuery& query);
  // AdmitBy::kAtDecode: of one that was placed so and whose prompt is computed. Its TTFT is over.
  Decision at_decode(const WorkerPool& pool, const PlacementQuery& query,
                     const Placement& placement) const;
  // Why a request with this decision is not to be served; nothing if it is. Of a model of which
  // none was accepted for 10 s one is, to learn whether what is believed of its workers still
  // holds.
  std::optional<Refusal> judge(const WorkerPool& pool, const PlacementQuery& query,
                               const Decision& decision);

  // How it went, seconds; teaches judge() what to leave below a target.
  void observe_ttft(double predicted, double actual, double target) {
    ttft_margin_.observe(predicted, actual, target);
  }
  void observe_tpot(double predicted, double actual, double target) {
    tpot_margin_.observe(predicted, actual, target);
  }

  const PlacementOptions& options() const { return options_; }

 private:
  struct Candidate {
    const Worker* worker = nullptr;
    uint32_t matched = 0, cached = 0;  // tokens, as in Decision
    double cost = 0;                   // of the scan; the less the better
    uint32_t turn = 0;                 // among equals
    bool foreseen = false;
    PromptEstimate prompt;
    uint32_t late = 0;  // prompts there that it would make late
    // Of a decode worker: what it would be beside what is there, by whatever prefill worker.
    std::optional<DecodeEstimate> joined;
  };
  using Candidates = std::vector<Candidate>;

  // scan.cc: who may serve it, and how they stand by the policy
  void collect(const std::vector<const Worker*>& workers, proto::Role role,
               const PlacementQuery& query, Candidates& out);
  void collect_prefill(const WorkerPool& pool, const PlacementQuery& query, Candidates& out);
  void rank(Candidates& candidates, uint64_t turn);
  static void sort_first(Candidates& candidates, size_t count);
  double prompt_cost(const Candidate& c, const PlacementQuery& query) const;
  double decode_cost(const Candidate& c, const PlacementQuery& query) const;
  double scan_cost(const Candidate& c, proto::Role role, const PlacementQuery& query) const;

  // placement.cc
  Promises promises() const { return {options_.classes, tpot_margin_.share()}; }
  static constexpr size_t kClosely = 6;  // of each role, so many are looked at closely
  static constexpr double kLast = 1e9;   // a cost: only if there is nobody else
  // What is foreseen to differ by less does not: equals take turns.
  static constexpr double kEqual = 0.97;
  struct Score {
    int promises = 0;  // kept, less those broken
    double cost = 0;
    bool better_than(const Score& o) const {
      return promises != o.promises ? promises > o.promises : cost < o.cost * kEqual;
    }
  };
  struct Best {
    const Candidate *prefill = nullptr, *decode = nullptr;
    Score score;
  };
  void collect_all(const WorkerPool& pool, const PlacementQuery& query);
  void foresee(Candidates& candidates, const PlacementQuery& query) const;
  void look_at(Candidate& c, const PlacementQuery& query) const;
  void foresee_joining(const PlacementQuery& query);
  Joining joins(double after) const;
  DecodeEstimate foresee_decode(const Candidate& decode, const Candidate& prefill,
                                const PlacementQuery& query) const;
  DecodeEstimate admitted_by(const Candidate& decode, const Candidate& prefill,
                             const PlacementQuery& query) const;
  Decision decide(const Candidate& prefill, const Candidate& decode, const DecodeEstimate& foreseen,
                  const PlacementQuery& query) const;
  Score score(const Candidate& prefill, const Candidate& decode, const PlacementQuery& query) const;
  void offer(const Candidate& prefill, const Candidate& decode, const PlacementQuery& query,
             Best& best) const;
  void best_pair(const PlacementQuery& query, Best& best);
  void best_alone(const PlacementQuery& query, Best& best) const;

  // admission.cc
  std::optional<Refusal> refusal_of(const WorkerPool& pool, const PlacementQuery& query,
                                    const Decision& decision);
  bool may_try(const PlacementQuery& query, const Decision& decision);
  void note_accepted(const PlacementQuery& query, const Decision& decision);
  struct Accepted {
    TimePoint alone, pair;  // the last that was placed so
  };
  Accepted& accepted_of(const PlacementQuery& query);

  PlacementOptions options_;
  std::minstd_rand random_;
  Margin ttft_margin_, tpot_margin_;
  std::map<std::string, Accepted, std::less<>> accepted_;  // by model
  Candidates prefill_, decode_, mixed_;                    // scratch
  // The least TTFT of any. A batch is foreseen for then: else a longer queue for the prompt would
  // make its decode worker look better.
  double soonest_ = 0;
  double mean_ttft_ = 0;  // of those looked at: until the awaited ones' prompts are computed
};

}  // namespace baton::router
