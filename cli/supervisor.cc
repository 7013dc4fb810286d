#include "cli/supervisor.h"

#include <signal.h>
#include <sys/wait.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/json.hpp>
#include <cstring>
#include <optional>
#include <utility>

#include "cli/restart_pause.h"
#include "common/base/log.h"

namespace baton::cli {

using boost::system::error_code;

namespace {

constexpr size_t kMaxReadyLine = 4096;

std::string how_it_ended(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    return std::string("killed by ") + strsignal(WTERMSIG(wait_status));
  }
  return "exit status " + std::to_string(WEXITSTATUS(wait_status));
}

Supervisor::Ports parse_ready(const std::string& line) {
  Supervisor::Ports ports;
  error_code ec;
  const auto v = boost::json::parse(line, ec);
  if (ec || !v.is_object()) return ports;
  for (const auto& item : v.as_object()) {
    error_code bad;
    const auto port = item.value().to_number<uint16_t>(bad);
    if (!bad) ports[std::string(item.key())] = port;
  }
  return ports;
}

}  // namespace

struct Supervisor::Entry {
  explicit Entry(boost::asio::io_context& io) : ready(io), restart(io), grace(io) {}
  Spec spec;
  pid_t pid = -1;
  Ports ports;
  bool served = false;               // once at least
  std::optional<TimePoint> serving;  // since when this one does
  bool stopping = false;
  RestartPause pause;
  std::function<void()> on_stopped;
  boost::asio::posix::stream_descriptor ready;
  boost::asio::steady_timer restart;
  boost::asio::steady_timer grace;
  std::string line;
};

Supervisor::Supervisor(boost::asio::io_context& io,
                       std::function<void(const std::string&)> on_fatal)
    : io_(io), child_signal_(io, SIGCHLD), on_fatal_(std::move(on_fatal)) {
  wait_for_children();
}

Supervisor::~Supervisor() {
  for (const auto& entry : entries_) {
    if (entry->pid <= 0) continue;
    kill(entry->pid, SIGKILL);
    waitpid(entry->pid, nullptr, 0);
  }
}

size_t Supervisor::add(Spec spec) {
  auto entry = std::make_shared<Entry>(io_);
  entry->spec = std::move(spec);
  entries_.push_back(entry);
  start(entry);
  return entries_.size() - 1;
}

void Supervisor::start(const std::shared_ptr<Entry>& entry) {
  auto child = spawn_serving(entry->spec.args(entry->ports));
  if (!child) {
    on_fatal_(entry->spec.name + ": " + child.error().message);
    return;
  }
  entry->pid = child->pid;
  entry->line.clear();
  entry->serving.reset();
  entry->ready.assign(child->ready_fd);
  read_ready(entry);
}

void Supervisor::read_ready(const std::shared_ptr<Entry>& entry) {
  boost::asio::async_read_until(entry->ready,
                                boost::asio::dynamic_buffer(entry->line, kMaxReadyLine), '\n',
                                [entry](error_code ec, size_t) {
                                  error_code ignored;
                                  entry->ready.close(ignored);
                                  if (ec) return;  // it ended; waitpid tells how
                                  entry->ports = parse_ready(entry->line);
                                  entry->served = true;
                                  entry->serving = Clock::now();
                                  if (entry->spec.on_ready) entry->spec.on_ready(entry->ports);
                                });
}

void Supervisor::wait_for_children() {
  child_signal_.async_wait([this](error_code ec, int) {
    if (ec) return;
    for (const auto& entry : entries_) {
      int wait_status = 0;
      if (entry->pid > 0 && waitpid(entry->pid, &wait_status, WNOHANG) == entry->pid) {
        ended(entry, wait_status);
      }
    }
    wait_for_children();
  });
}

void Supervisor::ended(const std::shared_ptr<Entry>& entry, int wait_status) {
  entry->pid = -1;
  if (entry->stopping) {
    entry->grace.cancel();
    if (entry->on_stopped) entry->on_stopped();
    return;
  }
  if (!entry->served) {
    on_fatal_(entry->spec.name + " did not start: " + how_it_ended(wait_status));
    return;
  }
  const Duration pause =
      entry->pause.after(entry->serving ? Clock::now() - *entry->serving : Duration::zero());
  LOG_WARN("{} ended ({}); starting it again in {} ms", entry->spec.name, how_it_ended(wait_status),
           std::chrono::duration_cast<milliseconds>(pause).count());
  entry->restart.expires_after(pause);
  entry->restart.async_wait([this, entry](error_code ec) {
    if (!ec && !entry->stopping) start(entry);
  });
}

void Supervisor::stop(size_t index, Duration grace, std::function<void()> done) {
  const auto& entry = entries_[index];
  entry->stopping = true;
  entry->restart.cancel();
  if (entry->pid <= 0) {
    done();
    return;
  }
  entry->on_stopped = std::move(done);
  kill(entry->pid, SIGTERM);
  entry->grace.expires_after(grace);
  entry->grace.async_wait([entry](error_code ec) {
    if (ec || entry->pid <= 0) return;
    LOG_WARN("{} did not end in time: killed", entry->spec.name);
    kill(entry->pid, SIGKILL);
  });
}

// SIGINT, since a second SIGTERM would be lost while the first is pending.
void Supervisor::hurry() {
  for (const auto& entry : entries_) {
    if (entry->stopping && entry->pid > 0) kill(entry->pid, SIGINT);
  }
}

}  // namespace baton::cli
