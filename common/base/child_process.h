#pragma once

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace baton {

struct ChildOptions {
  std::vector<int> inherit;    // descriptors that it has, too, by the same numbers; no others
  int death_signal = SIGTERM;  // from the kernel, should the thread that starts it end
};

// The entries of a null-terminated `environment` that a child gets: without the options of its
// parent (BATON_...), which `args` passes on where they are meant for it; BATON_MAX_ISA is none.
std::vector<std::string> environment_of_child(const char* const* environment);

// Starts this same program with `args` and the environment above, in a process group of its own:
// the terminal's Ctrl-C reaches only the parent, which decides the order of the end. Blocks for the
// fork only. kIo.
result<pid_t> spawn_self(const std::vector<std::string>& args, const ChildOptions& options);

// Waits for a child that has been told to end, and ends it by force after `patience`. Returns how
// it ended, in words: "with code 1", "by signal 9 (Killed)"; "by force ...", if it was that.
std::string await_child(pid_t pid, milliseconds patience);

}  // namespace baton
