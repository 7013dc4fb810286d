#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/base/result.h"

namespace baton::cli {

// A child process. It gets its own process group (the terminal's Ctrl-C reaches only the parent,
// which decides the order of the end) and SIGTERM from the kernel should the parent die.
struct Child {
  pid_t pid = -1;
  int ready_fd =
      -1;  // read end; the child writes one line here when it serves. Owned by the caller.
};

// The entries of a null-terminated `environment` that a child gets: without the options of its
// parent (BATON_...), which `args` passes on where they are meant for it; BATON_MAX_ISA is none.
std::vector<std::string> environment_of_child(const char* const* environment);

// Starts this same program with `args`, adding "--ready-fd N", and the environment above. Blocks
// for the fork only.
result<Child> spawn_self(const std::vector<std::string>& args);

// Writes the one line that tells the parent where this process serves, and closes the descriptor.
// Does nothing if ready_fd is negative.
void report_ready(int ready_fd, const std::string& line);

}  // namespace baton::cli
