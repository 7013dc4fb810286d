#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/clock.h"

namespace baton::sim {

// A cluster at one moment, as its clients know it.
struct Moment {
  Duration at{};                   // from the start of the run
  uint64_t prompts = 0;            // requests whose first token is awaited
  uint64_t sequences = 0;          // whose next ones are
  uint64_t came = 0, refused = 0;  // since the moment before
};

// How something goes up and down.
struct Swing {
  double mean = 0;
  double variation = 0;   // standard deviation over the mean
  double period = 0;      // seconds; 0: there is none
  double regularity = 0;  // autocorrelation at that lag, in [0, 1]
};
// Of values that were taken at equal distances. The period is the lag, of those above where the
// autocorrelation first is below 0 and up to a half of all, at which it is greatest.
Swing swing_of(std::span<const double> values, Duration every);

// Of the sequences that decode, from a fifth of the run on (it begins empty) while requests come.
Swing swing_of(std::span<const Moment> moments);

}  // namespace baton::sim
