#include <signal.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"

namespace {

constexpr const char* kHelp =
    "Baton serves large language models with prefill and decode on separate pools of workers.\n"
    "\n"
    "usage: baton COMMAND [options]      (baton COMMAND --help shows the options)\n"
    "\n"
    "  up        a whole cluster on this machine: a router and its workers\n"
    "  router    the HTTP front that places requests on workers\n"
    "  worker    one worker: prefill, decode or mixed\n"
    "  version   print the version\n";

}  // namespace

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error code, not an end
  const std::string_view command = argc > 1 ? argv[1] : "";
  const std::vector<std::string> args(argv + (argc > 1 ? 2 : 1), argv + argc);
  if (command == "up") return baton::cli::run_up(args);
  if (command == "router") return baton::cli::run_router(args);
  if (command == "worker") return baton::cli::run_worker(args);
  if (command == "version" || command == "--version") {
    std::printf("baton %s\n", BATON_VERSION);
    return 0;
  }
  if (command == "help" || command == "--help" || command == "-h") {
    std::fputs(kHelp, stdout);
    return 0;
  }
  std::fprintf(stderr, "baton: unknown command '%s'\n\n%s", std::string(command).c_str(), kHelp);
  return 2;
}
