#include "common/base/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>
#include <thread>

namespace baton {
namespace {

// The handlers that a child has from its parent would swallow its signals, and tell the parent of
// them through descriptors that both still share.
void drop_handlers() {
  for (int signal = 1; signal < NSIG; ++signal) {
    struct sigaction action;
    if (sigaction(signal, nullptr, &action) != 0 || action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = SIG_DFL;
    sigaction(signal, &action, nullptr);
  }
}

// After fork, with all signals blocked: only calls that are safe between fork and exec.
[[noreturn]] void become(char* const* argv, char* const* environment, pid_t parent,
                         const ChildOptions& options) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, options.death_signal);
  if (getppid() != parent) _exit(1);  // it died before the line above
  drop_handlers();
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  for (const int fd : options.inherit) fcntl(fd, F_SETFD, 0);
  execve("/proc/self/exe", argv, environment);
  _exit(127);
}

std::vector<char*> null_terminated(std::vector<std::string>& words) {
  std::vector<char*> pointers;
  for (auto& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

std::vector<std::string> environment_of_child(const char* const* environment) {
  std::vector<std::string> kept;
  for (; *environment != nullptr; ++environment) {
    const std::string_view entry(*environment);
    if (!entry.starts_with("BATON_") || entry.starts_with("BATON_MAX_ISA=")) {
      kept.emplace_back(entry);
    }
  }
  return kept;
}

result<pid_t> spawn_self(const std::vector<std::string>& args, const ChildOptions& options) {
  std::vector<std::string> all = {"baton"};
  all.insert(all.end(), args.begin(), args.end());
  std::vector<std::string> variables = environment_of_child(environ);
  const std::vector<char*> argv = null_terminated(all), environment = null_terminated(variables);

  const pid_t parent = getpid();
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  const pid_t pid = fork();
  if (pid == 0) become(argv.data(), environment.data(), parent, options);
  const int fork_errno = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (pid < 0) return error(Errc::kIo, std::string("fork: ") + std::strerror(fork_errno));
  return pid;
}

std::string await_child(pid_t pid, milliseconds patience) {
  constexpr milliseconds kLookEvery{5};
  const TimePoint end = Clock::now() + patience;
  int how = 0;
  while (waitpid(pid, &how, WNOHANG) == 0) {
    if (Clock::now() >= end) {
      kill(pid, SIGKILL);
      waitpid(pid, &how, 0);
      return "by force: it did not end by itself";
    }
    std::this_thread::sleep_for(kLookEvery);
  }
  if (WIFSIGNALED(how)) {
    return fmt::format("by signal {} ({})", WTERMSIG(how), strsignal(WTERMSIG(how)));
  }
  return fmt::format("with code {}", WEXITSTATUS(how));
}

}  // namespace baton
