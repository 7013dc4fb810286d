#include <signal.h>
#include <sys/prctl.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"
#include "common/proto/library_log.h"
#include "kvtransfer/ucx_signals.h"

namespace {

constexpr const char* kHelp =
    "Baton serves large language models with prefill and decode on separate pools of workers.\n"
    "\n"
    "usage: baton COMMAND [options]      (baton COMMAND --help shows the options)\n"
    "\n"
    "  up        a whole cluster on this machine: a router and its workers\n"
    "  router    the HTTP front that places requests on workers\n"
    "  worker    one worker: prefill, decode, mixed or auto\n"
    "  sim       the cluster on a virtual clock: how fast it is, and what goes wrong in it\n"
    "  plan      which workers serve a traffic best, for a number of GPUs\n"
    "  doctor    whether machine, model, network and configuration are fit, and what to do\n"
    "  version   print the version\n";

// What a command could not start with, and says by an exception, is one sentence as well.
int run(std::string_view command, int (*body)(const std::vector<std::string>&),
        const std::vector<std::string>& args) {
  try {
    return body(args);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "baton %s: %s\n", std::string(command).c_str(), e.what());
    return 1;
  }
}

}  // namespace

int main(int argc, char** argv) {
  prctl(PR_SET_NAME, "baton");  // children are started as /proc/self/exe, and would be called "exe"
  baton::kvtransfer::give_signals_back();
  baton::proto::silence_library();
  signal(SIGPIPE, SIG_IGN);  // a peer that went away is an error code, not an end
  const std::string_view command = argc > 1 ? argv[1] : "";
  const std::vector<std::string> args(argv + (argc > 1 ? 2 : 1), argv + argc);
  if (command == "up") return run(command, baton::cli::run_up, args);
  if (command == "router") return run(command, baton::cli::run_router, args);
  if (command == "worker") return run(command, baton::cli::run_worker, args);
  if (command == "rank") return run(command, baton::cli::run_rank, args);
  if (command == "sim") return run(command, baton::cli::run_sim, args);
  if (command == "plan") return run(command, baton::cli::run_plan, args);
  if (command == "doctor") return run(command, baton::cli::run_doctor, args);
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
