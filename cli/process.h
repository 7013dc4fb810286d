#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/base/result.h"

namespace baton::cli {

// A child process that serves; see spawn_self in base.
struct Child {
  pid_t pid = -1;
  int ready_fd =
      -1;  // read end; the child writes one line here when it serves. Owned by the caller.
};

// Starts this same program with `args`, adding "--ready-fd N". Should the parent die, it gets
// SIGTERM. Blocks for the fork only.
result<Child> spawn_serving(const std::vector<std::string>& args);

// Writes the one line that tells the parent where this process serves, and closes the descriptor.
// Does nothing if ready_fd is negative.
void report_ready(int ready_fd, const std::string& line);

}  // namespace baton::cli
