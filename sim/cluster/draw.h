#pragma once

#include <cstdint>

#include "sim/random.h"

// Random numbers of known distributions, the same on every machine of one C library.
namespace baton::sim {

double uniform(Random& random);  // in (0, 1)
double standard_normal(Random& random);
double exponential(Random& random);  // mean 1
// Mean 1, coefficient of variation `cv` above 0 (Marsaglia and Tsang, ACM TOMS 26, 2000).
double gamma_of(Random& random, double cv);
// A log-normal length with this mean and a standard deviation equal to it, in [1, 16 means].
uint32_t log_normal_length(Random& random, double mean);

}  // namespace baton::sim
