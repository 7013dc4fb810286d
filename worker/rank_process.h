#pragma once

namespace baton::worker {

// The life of a rank that is not the first of its worker: it is set up over `fd`, one end of a
// RankChannel, loads its part of the model, attaches the cache and runs the steps it is told, until
// the line ends. Blocks. Returns the process's exit status.
int run_rank(int fd);

}  // namespace baton::worker
