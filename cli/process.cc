#include "cli/process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "common/base/log.h"

namespace baton::cli {
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
[[noreturn]] void become(char* const* argv, char* const* environment, pid_t parent, int write_fd) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(1);  // it died before the line above
  drop_handlers();
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  fcntl(write_fd, F_SETFD, 0);
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

result<Child> spawn_self(const std::vector<std::string>& args) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    return error(Errc::kIo, std::string("pipe: ") + std::strerror(errno));
  }
  std::vector<std::string> all = {"baton"};
  all.insert(all.end(), args.begin(), args.end());
  all.insert(all.end(), {"--ready-fd", std::to_string(fds[1])});
  std::vector<std::string> variables = environment_of_child(environ);
  const std::vector<char*> argv = null_terminated(all), environment = null_terminated(variables);

  const pid_t parent = getpid();
  sigset_t every, before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  const pid_t pid = fork();
  if (pid == 0) become(argv.data(), environment.data(), parent, fds[1]);
  const int fork_errno = errno;
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  close(fds[1]);
  if (pid < 0) {
    close(fds[0]);
    return error(Errc::kIo, std::string("fork: ") + std::strerror(fork_errno));
  }
  return Child{pid, fds[0]};
}

void report_ready(int ready_fd, const std::string& line) {
  if (ready_fd < 0) return;
  const std::string text = line + "\n";
  if (write(ready_fd, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    LOG_WARN("the parent did not take the ready line: {}", std::strerror(errno));
  }
  close(ready_fd);
}

}  // namespace baton::cli
