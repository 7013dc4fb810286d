#include <signal.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdio>
#include <thread>
#include <utility>

#include "cli/api_keys.h"
#include "cli/ask.h"
#include "cli/banner.h"
#include "cli/commands.h"
#include "cli/http_address.h"
#include "cli/shared_secret.h"
#include "cli/supervisor.h"
#include "cli/up_config.h"
#include "common/base/log.h"
#include "common/net/rpc.h"

namespace baton::cli {
namespace {

using boost::system::error_code;

// A whole cluster as child processes of this one.
class Cluster {
 public:
  // `api_key`: one that the router takes; empty if it asks for none.
  Cluster(UpConfig config, std::string api_key)
      : config_(std::move(config)),
        api_key_(std::move(api_key)),
        signals_(io_, SIGINT, SIGTERM),
        ready_timer_(io_),
        supervisor_(io_, [this](const std::string& why) { fatal(why); }) {}

  int run() {
    started_ = Clock::now();
    signals_.async_wait([this](error_code ec, int signal) {
      if (!ec) shut_down(is_serving() ? 0 : 128 + signal);
    });
    workers_left_ = config_.workers();
    ports_.resize(workers_left_);
    for (const auto& [role, workers] : config_.of_roles()) {
      for (uint32_t i = 0; i < workers; ++i) add_worker(role, i);
    }
    io_.run();
    if (asker_.joinable()) asker_.join();
    return exit_status_;
  }

 private:
  void say(const std::string& text) {
    if (!config_.quiet) std::fprintf(stderr, "%s\n", text.c_str());
  }

  void add_worker(const std::string& role, uint32_t index) {
    const size_t slot = workers_++;
    const uint32_t gpu =
        std::exchange(next_gpu_, next_gpu_ + config_.ranks_of(role)) % config_.gpus;
    const std::string name = role + "-" + std::to_string(index);
    supervisor_.add(
        {.name = name,
         .args =
             [this, role, name, gpu](const Supervisor::Ports& last) {
               return worker_args(
                   config_, {role, name, own_port(last, "rpc"), own_port(last, "metrics"), gpu});
             },
         .on_ready = [this, slot,
                      name](const Supervisor::Ports& ports) { worker_ready(slot, name, ports); }});
  }

  // Where a child was, or any free port on loopback.
  static std::string own_port(const Supervisor::Ports& last, const char* which) {
    const auto found = last.find(which);
    return net::join_host_port("127.0.0.1", found == last.end() ? 0 : found->second);
  }

  void worker_ready(size_t slot, const std::string& name, const Supervisor::Ports& ports) {
    if (stopping_ || ports_[slot] != 0) return;  // or back after a death, where it was
    const auto rpc = ports.find("rpc");
    if (rpc == ports.end()) return fatal(name + " did not say where it listens");
    ports_[slot] = rpc->second;
    if (--workers_left_ == 0) add_router();
  }

  void add_router() {
    router_ = supervisor_.add(
        {.name = "router",
         .args =
             [this](const Supervisor::Ports& last) {
               const auto http = last.find("http");
               const auto port = http == last.end() ? config_.port : http->second;
               return router_args(config_, static_cast<uint16_t>(port), worker_addresses());
             },
         .on_ready =
             [this](const Supervisor::Ports& ports) {
               if (const auto http = ports.find("http"); http != ports.end()) {
                 http_port_ = http->second;
               }
               wait_until_ready(Clock::now() + seconds(30));
             }});
    has_router_ = true;
  }

  std::vector<std::string> worker_addresses() const {
    std::vector<std::string> addresses;
    for (const uint16_t port : ports_) addresses.push_back(net::join_host_port("127.0.0.1", port));
    return addresses;
  }

  RouterAddress router() const { return {reachable_host(config_.host), http_port_}; }
  std::string url() const {
    return "http://" + net::join_host_port(router().host, http_port_) + "/v1";
  }
  // People use it now: to stop it is no failure.
  bool is_serving() const { return announced_ && config_.once.empty(); }

  void wait_until_ready(TimePoint deadline) {
    if (announced_ || stopping_) return;
    if (is_ready(router())) return up();
    if (Clock::now() > deadline) return fatal("the cluster did not become ready in 30 s");
    ready_timer_.expires_after(milliseconds(10));
    ready_timer_.async_wait([this, deadline](error_code ec) {
      if (!ec) wait_until_ready(deadline);
    });
  }

  void up() {
    announced_ = true;
    char text[64];
    std::snprintf(text, sizeof(text), "%.1f s", to_seconds(Clock::now() - started_));
    say("Baton is up after " + std::string(text) + ": " + shape_text(config_) + ", " + url());
    const std::string prompt = config_.once.empty() ? config_.ask : config_.once;
    if (prompt.empty()) return say(usage_text(config_, url()));
    say("\n> " + prompt + "\n");
    asker_ = std::thread([this, prompt] {
      const Question question{config_.model_name, prompt, api_key_, config_.ask_tokens};
      auto answer = ask(router(), question, seconds(600));
      boost::asio::post(io_, [this, answer = std::move(answer)] { answered(answer); });
    });
  }

  void answered(const result<AskTimings>& answer) {
    if (stopping_) return;
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (!answer) {
      std::fprintf(stderr, "baton up: no answer: %s\n", answer.error().message.c_str());
      if (!config_.once.empty()) return shut_down(1);
      return say(usage_text(config_, url()));
    }
    say("\n" + timings_text(*answer));
    if (!config_.once.empty()) return shut_down(0);
    say(usage_text(config_, url()));
  }

  void fatal(const std::string& why) {
    if (stopping_) return;
    std::fprintf(stderr, "baton up: %s\n", why.c_str());
    shut_down(1);
  }

  // The router first, so that what runs ends while its workers still stand; a second signal
  // hurries.
  void shut_down(int exit_status) {
    if (stopping_) return;
    stopping_ = true;
    exit_status_ = exit_status;
    ready_timer_.cancel();
    signals_.async_wait([this](error_code ec, int signal) {
      if (ec) return;
      supervisor_.hurry();
      std::_Exit(128 + signal);  // the other children get SIGTERM from the kernel
    });
    if (has_router_) {
      if (is_serving() && exit_status == 0) say("\nStopping.");
      supervisor_.stop(router_, kRouterGrace, [this] { stop_workers(); });
    } else {
      stop_workers();
    }
  }

  void stop_workers() {
    to_stop_ = workers_;
    if (to_stop_ == 0) return io_.stop();
    for (size_t i = 0; i < workers_; ++i) {
      supervisor_.stop(i, kWorkerGrace, [this] {
        if (--to_stop_ == 0) io_.stop();
      });
    }
  }

  const UpConfig config_;
  const std::string api_key_;
  boost::asio::io_context io_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer ready_timer_;
  Supervisor supervisor_;
  TimePoint started_;
  size_t workers_ = 0, workers_left_ = 0, to_stop_ = 0;
  uint32_t next_gpu_ = 0;        // of those that ranks get in turn
  std::vector<uint16_t> ports_;  // [worker] its RPC port
  size_t router_ = 0;
  bool has_router_ = false, announced_ = false, stopping_ = false;
  uint16_t http_port_ = 0;
  int exit_status_ = 0;
  std::thread asker_;
};

// Of a command, as its arguments are checked.
std::vector<std::string> without_name(std::vector<std::string> command) {
  command.erase(command.begin());
  return command;
}

int refuse(const Error& why) {
  std::fprintf(stderr, "baton up: %s\n", why.message.c_str());
  return 2;
}

}  // namespace

status check_up_file(const std::string& file) {
  UpConfig config;
  BATON_CHECK_OK(parse_up({"--config", file}, config));
  for (const auto& [role, workers] : config.of_roles()) {
    if (workers == 0) continue;
    const WorkerPlace place{role, role + "-0", "127.0.0.1:0", "127.0.0.1:0"};
    BATON_CHECK_OK(check_worker(without_name(worker_args(config, place))));
  }
  return check_router(without_name(router_args(config, 0, {"127.0.0.1:1"})));
}

int run_up(const std::vector<std::string>& args) {
  UpConfig config;
  const auto outcome = parse_up(args, config);
  if (!outcome) return refuse(outcome.error());
  if (*outcome == Options::Outcome::kDone) return 0;
  const auto keys = read_api_keys(config.access.api_key_file);
  if (!keys) return refuse(keys.error());
  for (const char* name : {net::kTlsRouterName, net::kTlsWorkerName}) {
    if (const auto usable = read_tls(config.tls, name); !usable) return refuse(usable.error());
  }
  auto secret_file = draw_secret_file();
  if (!secret_file) return refuse(secret_file.error());
  config.secret_file = std::move(*secret_file);
  init_log("up", config.log_level);
  return Cluster(config, keys->empty() ? "" : keys->front()).run();
}

}  // namespace baton::cli
