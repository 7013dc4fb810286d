#pragma once

#include <limits>
#include <optional>
#include <vector>

#include "sim/plan/layout.h"
#include "sim/plan/trials.h"

namespace baton::sim {

// A placement that may be the best. Rates are requests a second of all its units.
struct Entrant {
  Layout layout;
  double estimate = 0;                                     // by its phases alone
  double bound = std::numeric_limits<double>::infinity();  // none can be above it
};

struct Winner {
  Layout layout;
  double estimate = 0;
  double goodput = 0;  // by simulation of the whole
};

// Finds the best of placements by simulating whole clusters, as few as it can: the rate of the best
// so far is searched, and others need only hold a little more than that.
class Contest {
 public:
  // All outlive it.
  Contest(Trials& trials, const Hardware& table, const TraceFile& trace)
      : trials_(trials), table_(table), trace_(trace) {}

  // Tries them, the best estimates first. Left out: those whose bound is not above the best, and,
  // beyond the first `sure`, those whose estimate is far below the best one, and those behind one
  // of the same kinds of worker that was far worse than another nearer to the middle.
  void hold(std::vector<Entrant> entrants, size_t sure);
  // Leaves out workers that the best does not need.
  void trim();
  const std::optional<Winner>& best() const { return best_; }

 private:
  struct Tried {
    Layout layout;
    double attained = 0;
  };
  bool worth_a_try(const Entrant& entrant) const;
  bool behind_a_loser(const Layout& layout) const;
  void first(const std::vector<Entrant>& batch);
  void challenge(const std::vector<Entrant>& batch);
  std::vector<double> attained(const std::vector<Layout>& layouts, double rate);
  void search(const std::vector<Entrant>& batch, const std::vector<double>& starts);

  Trials& trials_;
  const Hardware& table_;
  const TraceFile& trace_;
  std::optional<Winner> best_;
  std::vector<Tried> tried_;
};

// Prompts that decode workers of a plan may compute themselves: the router's default.
inline constexpr uint32_t kLocalTokens = 512;

}  // namespace baton::sim
