#pragma once

#include <string>
#include <vector>

namespace baton::cli {

// Each takes the arguments after its name and returns the process's exit status.
int run_up(const std::vector<std::string>& args);
int run_plan(const std::vector<std::string>& args);
int run_rank(const std::vector<std::string>& args);
int run_router(const std::vector<std::string>& args);
int run_sim(const std::vector<std::string>& args);
int run_worker(const std::vector<std::string>& args);

}  // namespace baton::cli
