// One guard of the product is broken in this program (CMakeLists.txt): the simulator must find
// that. usage: sim_mutant_X SEEDS "what it must say". Ends with 0 if a seed said so.
#include <cstdio>
#include <cstdlib>
#include <string>

#include "common/base/log.h"
#include "sim/world.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  spdlog::set_level(spdlog::level::off);
  const uint64_t seeds = std::strtoull(argv[1], nullptr, 10);
  const std::string expected = argv[2];
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    const baton::sim::RunResult run = baton::sim::run_world({.seed = seed});
    if (run.violation.empty()) continue;
    // What is broken may show first as something else.
    const bool as_expected = run.violation.find(expected) != std::string::npos;
    std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), run.violation.c_str());
    if (as_expected) return 0;
  }
  std::printf("not found in %llu seeds\n", static_cast<unsigned long long>(seeds));
  return 1;
}
