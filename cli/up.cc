#include <signal.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <thread>

#include "cli/ask.h"
#include "cli/commands.h"
#include "cli/model_name.h"
#include "cli/supervisor.h"
#include "common/base/config.h"
#include "common/base/log.h"

namespace baton::cli {
namespace {

using boost::system::error_code;

struct UpConfig {
  std::string model;
  uint32_t prefill = 1, decode = 1, mixed = 0;
  uint32_t port = 8000;
  std::string host = "127.0.0.1";
  uint32_t threads_per_worker = 0;
  std::string dtype = "bf16";
  std::string device = "cpu";
  double kv_gib = 0.5;
  uint32_t block_tokens = 16;
  uint32_t chunk_tokens = 256;
  uint32_t max_context = 0;
  uint32_t max_sequences = 64;
  uint32_t preempt_every = 0;
  bool prefix_cache = true;
  std::string transport = "auto";
  std::string api_key_file;
  std::string log_level = "warn";
  std::string ask, once;
  uint32_t ask_tokens = 200;
  bool quiet = false;
};

void add_options(Options& options, UpConfig& c) {
  options.add("model", &c.model, "GGUF file or Hugging Face directory");
  options.add("prefill", &c.prefill, "Prefill workers");
  options.add("decode", &c.decode, "Decode workers");
  options.add("mixed", &c.mixed, "Mixed workers; with any, --prefill and --decode default to 0");
  options.add("host", &c.host, "Address that HTTP listens on");
  options.add("port", &c.port, "Port that HTTP listens on; 0 picks a free one");
  options.add("threads-per-worker", &c.threads_per_worker,
              "Compute threads of each worker; 0 divides the cores");
  options.add("dtype", &c.dtype, "Weights and KV cache: bf16 or f32");
  options.add("device", &c.device, "Where workers compute: cpu");
  options.add("kv-gib", &c.kv_gib, "KV cache of each worker, GiB");
  options.add("block-tokens", &c.block_tokens, "Tokens in a KV block: 16, 32, 64, 128 or 256");
  options.add("chunk-tokens", &c.chunk_tokens,
              "Prompt tokens computed in one step; 0: all at once");
  options.add("max-context", &c.max_context, "Longest prompt + output; 0: what the model allows");
  options.add("max-sequences", &c.max_sequences, "Sequences that a worker decodes at once");
  options.add("prefix-cache", &c.prefix_cache, "Keep the KV of finished prompts for reuse");
  options.add("preempt-every", &c.preempt_every, "For tests: preempt a sequence every N steps");
  options.add("transport", &c.transport, "KV transport between workers: auto, shm or tcp");
  options.add("api-key-file", &c.api_key_file, "File with one accepted API key a line");
  options.add("log-level", &c.log_level, "debug, info, warn or error");
  options.add("ask", &c.ask, "Ask this once the cluster is up, then stay up");
  options.add("once", &c.once, "Ask this, print the answer and stop");
  options.add("ask-tokens", &c.ask_tokens, "Longest answer to --ask and --once, tokens");
  options.add("quiet", &c.quiet, "Print the answer alone, no banner");
}

// A whole cluster as child processes of this one.
class Cluster {
 public:
  explicit Cluster(UpConfig config)
      : config_(std::move(config)),
        signals_(io_, SIGINT, SIGTERM),
        ready_timer_(io_),
        supervisor_(io_, [this](const std::string& why) { fatal(why); }) {}

  int run() {
    started_ = Clock::now();
    signals_.async_wait([this](error_code ec, int) {
      if (!ec) shut_down(0);
    });
    workers_left_ = config_.prefill + config_.decode + config_.mixed;
    ports_.resize(workers_left_);
    for (uint32_t i = 0; i < config_.prefill; ++i) add_worker("prefill", i);
    for (uint32_t i = 0; i < config_.decode; ++i) add_worker("decode", i);
    for (uint32_t i = 0; i < config_.mixed; ++i) add_worker("mixed", i);
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
    const std::string name = role + "-" + std::to_string(index);
    supervisor_.add(
        {.name = name,
         .args = [this, role,
                  name](const Supervisor::Ports& last) { return worker_args(role, name, last); },
         .on_ready = [this, slot,
                      name](const Supervisor::Ports& ports) { worker_ready(slot, name, ports); }});
  }

  std::vector<std::string> worker_args(const std::string& role, const std::string& name,
                                       const Supervisor::Ports& last) const {
    const auto port = [&](const char* which) {
      const auto found = last.find(which);
      return "127.0.0.1:" + std::to_string(found == last.end() ? 0 : found->second);
    };
    std::vector<std::string> args = {"worker",
                                     "--role",
                                     role,
                                     "--name",
                                     name,
                                     "--model",
                                     config_.model,
                                     "--listen",
                                     port("rpc"),
                                     "--metrics-listen",
                                     port("metrics"),
                                     "--threads",
                                     std::to_string(threads()),
                                     "--dtype",
                                     config_.dtype,
                                     "--device",
                                     config_.device,
                                     "--kv-gib",
                                     std::to_string(config_.kv_gib),
                                     "--block-tokens",
                                     std::to_string(config_.block_tokens),
                                     "--chunk-tokens",
                                     std::to_string(config_.chunk_tokens),
                                     "--max-context",
                                     std::to_string(config_.max_context),
                                     "--max-sequences",
                                     std::to_string(config_.max_sequences),
                                     "--preempt-every",
                                     std::to_string(config_.preempt_every),
                                     "--transport",
                                     config_.transport,
                                     "--log-level",
                                     config_.log_level};
    args.push_back(config_.prefix_cache ? "--prefix-cache=true" : "--prefix-cache=false");
    return args;
  }

  uint32_t threads() const {
    if (config_.threads_per_worker != 0) return config_.threads_per_worker;
    const uint32_t workers = config_.prefill + config_.decode + config_.mixed;
    return std::max(1u, std::thread::hardware_concurrency() / workers);
  }

  void worker_ready(size_t slot, const std::string& name, const Supervisor::Ports& ports) {
    if (ports_[slot] != 0) return;  // back after a death, where it was
    const auto rpc = ports.find("rpc");
    if (rpc == ports.end()) return fatal(name + " did not say where it listens");
    ports_[slot] = rpc->second;
    if (--workers_left_ == 0) add_router();
  }

  void add_router() {
    router_ = supervisor_.add(
        {.name = "router",
         .args = [this](const Supervisor::Ports& last) { return router_args(last); },
         .on_ready =
             [this](const Supervisor::Ports& ports) {
               if (const auto http = ports.find("http"); http != ports.end()) {
                 http_port_ = http->second;
               }
               wait_until_ready(Clock::now() + seconds(30));
             }});
    has_router_ = true;
  }

  std::vector<std::string> router_args(const Supervisor::Ports& last) const {
    const auto http = last.find("http");
    const uint32_t port = http == last.end() ? config_.port : http->second;
    std::vector<std::string> args = {"router",
                                     "--model",
                                     config_.model,
                                     "--listen",
                                     config_.host + ":" + std::to_string(port),
                                     "--api-key-file",
                                     config_.api_key_file,
                                     "--log-level",
                                     config_.log_level};
    args.push_back("--workers");
    for (const uint16_t p : ports_) args.push_back("127.0.0.1:" + std::to_string(p));
    return args;
  }

  void wait_until_ready(TimePoint deadline) {
    if (announced_ || stopping_) return;
    if (is_ready(http_port_)) return up();
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
    say("Baton is up after " + std::string(text) + ": " + shape() + ", http://" + config_.host +
        ":" + std::to_string(http_port_) + "/v1");
    const std::string prompt = config_.once.empty() ? config_.ask : config_.once;
    if (prompt.empty()) return print_usage();
    say("\n> " + prompt + "\n");
    asker_ = std::thread([this, prompt] {
      const Question question{model_name_of(config_.model), prompt, first_key(),
                              config_.ask_tokens};
      auto answer = ask(http_port_, question, seconds(600));
      boost::asio::post(io_, [this, answer = std::move(answer)] { answered(answer); });
    });
  }

  void answered(const result<AskTimings>& answer) {
    if (stopping_) return;
    std::fputs("\n", stdout);
    std::fflush(stdout);
    if (!answer) {
      say("no answer: " + answer.error().message);
      if (!config_.once.empty()) return shut_down(1);
      return print_usage();
    }
    say("\n" + timings_line(*answer));
    if (!config_.once.empty()) return shut_down(0);
    print_usage();
  }

  static std::string timings_line(const AskTimings& t) {
    char text[512];
    int n = std::snprintf(text, sizeof(text),
                          "[TTFT %.0f ms, TPOT %.1f ms, %llu prompt + %llu output tokens",
                          to_seconds(t.ttft) * 1e3, to_seconds(t.tpot) * 1e3,
                          static_cast<unsigned long long>(t.prompt_tokens),
                          static_cast<unsigned long long>(t.output_tokens));
    std::string line(text, static_cast<size_t>(n));
    if (!t.kv_transport.empty()) {
      std::snprintf(text, sizeof(text), "; %.2f MB of KV read by %s from %s over %s",
                    static_cast<double>(t.kv_bytes) / 1e6, t.decode_worker.c_str(),
                    t.prefill_worker.c_str(), t.kv_transport.c_str());
      line += text;
    }
    return line + "]";
  }

  void print_usage() {
    const std::string url = "http://" + config_.host + ":" + std::to_string(http_port_) + "/v1";
    say("\nTry it:\n\n"
        "  curl -N " +
        url +
        "/chat/completions -H 'Content-Type: application/json' \\\n"
        "    -d '{\"model\": \"" +
        model_name_of(config_.model) +
        "\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}], \"stream\": "
        "true}'\n\n"
        "  from openai import OpenAI\n"
        "  client = OpenAI(base_url=\"" +
        url +
        "\", api_key=\"none\")\n"
        "  model = client.models.list().data[0].id\n"
        "  reply = client.chat.completions.create(\n"
        "      model=model, messages=[{\"role\": \"user\", \"content\": \"Hello!\"}])\n"
        "  print(reply.choices[0].message.content)\n\n"
        "Ctrl-C stops it.");
  }

  std::string shape() const {
    std::string text = "1 router";
    const auto part = [&](uint32_t n, const char* role) {
      if (n > 0) text += " + " + std::to_string(n) + " " + role;
    };
    part(config_.prefill, "prefill");
    part(config_.decode, "decode");
    part(config_.mixed, "mixed");
    return text;
  }

  std::string first_key() const {
    if (config_.api_key_file.empty()) return {};
    char line[512] = {};
    if (std::FILE* f = std::fopen(config_.api_key_file.c_str(), "r")) {
      if (std::fgets(line, sizeof(line), f) == nullptr) line[0] = '\0';
      std::fclose(f);
    }
    std::string key(line);
    while (!key.empty() && (key.back() == '\n' || key.back() == '\r')) key.pop_back();
    return key;
  }

  void fatal(const std::string& why) {
    if (stopping_) return;
    std::fprintf(stderr, "baton up: %s\n", why.c_str());
    shut_down(1);
  }

  // The router first, so that what runs ends while its workers still stand; a second signal
  // hurries.
  void shut_down(int exit_status) {
    stopping_ = true;
    exit_status_ = exit_status;
    ready_timer_.cancel();
    signals_.async_wait([this](error_code ec, int) {
      if (!ec) std::_Exit(130);  // children get SIGTERM from the kernel
    });
    if (has_router_) {
      if (announced_ && config_.once.empty() && exit_status == 0) say("\nStopping.");
      supervisor_.stop(router_, seconds(15), [this] { stop_workers(); });
    } else {
      stop_workers();
    }
  }

  void stop_workers() {
    to_stop_ = workers_;
    if (to_stop_ == 0) return io_.stop();
    for (size_t i = 0; i < workers_; ++i) {
      supervisor_.stop(i, seconds(5), [this] {
        if (--to_stop_ == 0) io_.stop();
      });
    }
  }

  const UpConfig config_;
  boost::asio::io_context io_;
  boost::asio::signal_set signals_;
  boost::asio::steady_timer ready_timer_;
  Supervisor supervisor_;
  TimePoint started_;
  size_t workers_ = 0, workers_left_ = 0, to_stop_ = 0;
  std::vector<uint16_t> ports_;  // [worker] its RPC port
  size_t router_ = 0;
  bool has_router_ = false, announced_ = false, stopping_ = false;
  uint16_t http_port_ = 0;
  int exit_status_ = 0;
  std::thread asker_;
};

status check(const UpConfig& c) {
  if (c.model.empty()) return error(Errc::kInvalidArgument, "--model is needed");
  BATON_CHECK_OK(check_log_level(c.log_level));
  if (c.mixed == 0 && (c.prefill == 0 || c.decode == 0)) {
    return error(Errc::kInvalidArgument,
                 "nothing can answer: give --mixed N, or --prefill N and --decode N");
  }
  if (c.prefill + c.decode + c.mixed > 64) {
    return error(Errc::kInvalidArgument, "more than 64 workers on one machine");
  }
  if (c.port > 65535) return error(Errc::kInvalidArgument, "--port is over 65535");
  return {};
}

}  // namespace

int run_up(const std::vector<std::string>& args) {
  UpConfig config;
  for (const auto& arg : args) {
    // Asking for mixed workers means just them, unless the others are asked for too.
    if (arg == "--mixed" || arg.starts_with("--mixed=")) config.prefill = config.decode = 0;
  }
  Options options("up", "A whole cluster on this machine: a router and its workers.");
  add_options(options, config);
  const auto outcome = options.parse(args);
  if (outcome && *outcome == Options::Outcome::kDone) return 0;
  const status usable = outcome ? check(config) : status(outcome.error());
  if (!usable) {
    std::fprintf(stderr, "baton up: %s\n", usable.error().message.c_str());
    return 2;
  }
  init_log("up", config.log_level);
  return Cluster(config).run();
}

}  // namespace baton::cli
