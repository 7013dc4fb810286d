#include "cli/process.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/child_process.h"
#include "common/base/log.h"

namespace baton::cli {

result<Child> spawn_serving(const std::vector<std::string>& args) {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) {
    return error(Errc::kIo, std::string("pipe: ") + std::strerror(errno));
  }
  std::vector<std::string> all = args;
  all.insert(all.end(), {"--ready-fd", std::to_string(fds[1])});
  const result<pid_t> pid = spawn_self(all, {.inherit = {fds[1]}});
  close(fds[1]);
  if (!pid) {
    close(fds[0]);
    return pid.error();
  }
  return Child{*pid, fds[0]};
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
