#include <cstdio>
#include <string>

#include "cli/commands.h"
#include "common/base/config.h"
#include "worker/rank_process.h"

namespace baton::cli {

int run_rank(const std::vector<std::string>& args) {
  int32_t fd = -1;
  Options options("rank", "One more rank of a worker, which starts it: not for people.");
  options.add("fd", &fd, "Descriptor of the line to the worker's first rank");
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  if (!outcome || fd < 0) {
    std::fprintf(stderr, "baton rank: %s\n",
                 outcome ? "a worker starts this, with --fd" : outcome.error().message.c_str());
    return 2;
  }
  return worker::run_rank(fd);
}

}  // namespace baton::cli
