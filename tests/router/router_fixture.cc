#include "tests/router/router_fixture.h"

#include <fstream>

#include "tests/fakes/toy_tokenizer.h"

namespace baton::router {

RouterFixture::RouterFixture() : work_(io_.get_executor()) {
  std::ofstream(dir_ / "tokenizer.json") << fakes::toy_tokenizer_json();
  std::ofstream(dir_ / "tokenizer_config.json") << fakes::toy_tokenizer_config_json();
  thread_ = std::thread([this] { io_.run(); });
}

RouterFixture::~RouterFixture() {
  on_io([&] {
    router_.reset();
    workers_.clear();
    return 0;
  });
  work_.reset();
  io_.stop();
  thread_.join();
}

fakes::FakeWorker& RouterFixture::add_worker(fakes::FakeWorkerOptions options) {
  options.network = &network_;
  return *on_io([&] {
    workers_.push_back(std::make_unique<fakes::FakeWorker>(io_, std::move(options)));
    return workers_.back().get();
  });
}

void RouterFixture::add_pair(Duration step) {
  add_worker({.role = proto::ROLE_PREFILL, .name = "prefill-0", .step = step});
  add_worker({.role = proto::ROLE_DECODE, .name = "decode-0", .step = step});
}

void RouterFixture::start(RouterConfig config) {
  config.http.address = "127.0.0.1:0";
  if (config.models.empty()) config.models.push_back({"toy", dir_.path()});
  for (const auto& worker : workers_) config.workers.push_back(worker->address());
  const auto failed = on_io([&] {
    auto service = RouterService::start(io_, std::move(config));
    if (!service) return service.error().message;
    router_ = std::move(*service);
    port_ = router_->http_port();
    return std::string();
  });
  ASSERT_EQ(failed, "");
}

void RouterFixture::wait_ready(size_t) {
  ASSERT_TRUE(eventually([&] { return ask(get("/ready")).status == 200; }));
}

bool RouterFixture::eventually(const std::function<bool()>& condition,
                               std::chrono::milliseconds within) {
  const auto until = std::chrono::steady_clock::now() + within;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

size_t RouterFixture::active_on_workers() {
  return on_io([&] {
    size_t active = 0;
    for (const auto& worker : workers_) active += worker->active();
    return active;
  });
}

std::string fake_text(const std::vector<TokenId>& prompt, uint32_t choice, uint32_t tokens,
                      uint64_t seed) {
  proto::RequestSpec spec;
  spec.mutable_tokens()->Add(prompt.begin(), prompt.end());
  spec.set_prompt_tokens(static_cast<uint32_t>(prompt.size()));
  spec.mutable_sampling()->set_temperature(1);
  spec.mutable_sampling()->set_seed(seed);
  std::string text;
  for (uint32_t i = 0; i < tokens; ++i) {
    text += static_cast<char>(fakes::fake_token(spec, choice, i));
  }
  return text;
}

}  // namespace baton::router
