#pragma once

#include <string>
#include <vector>

#include "common/base/result.h"

namespace baton::cli {

// Each takes the arguments after its name and returns the process's exit status.
int run_doctor(const std::vector<std::string>& args);
int run_up(const std::vector<std::string>& args);
int run_plan(const std::vector<std::string>& args);
int run_rank(const std::vector<std::string>& args);
int run_router(const std::vector<std::string>& args);
int run_sim(const std::vector<std::string>& args);
int run_worker(const std::vector<std::string>& args);

// Whether the command can be started with that file as its --config: all that is checked before
// anything starts.
status check_router_file(const std::string& file);
status check_up_file(const std::string& file);
status check_worker_file(const std::string& file);
// The same for these arguments.
status check_router(const std::vector<std::string>& args);
status check_worker(const std::vector<std::string>& args);

}  // namespace baton::cli
