#include <fmt/format.h>
#include <gloo/allgatherv.h>
#include <gloo/allreduce.h>
#include <gloo/math.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/store.h>
#include <gloo/transport/tcp/device.h>
#include <sys/random.h>

#include <exception>
#include <map>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "common/collective/collective.h"

namespace baton::collective {
namespace {

constexpr size_t kNonceBytes = 16;

// What Gloo asks for while it connects: every rank sets a key of its own and then gets everybody
// else's, a few times over; all ranks in step.
class ExchangedStore final : public gloo::rendezvous::Store {
 public:
  explicit ExchangedStore(const Exchange& exchange) : exchange_(exchange) {}

  void set(const std::string& key, const std::vector<char>& data) override {
    for (const std::string& said : exchange(key + '\n' + std::string(data.begin(), data.end()))) {
      const size_t end = said.find('\n');
      if (end == std::string::npos) throw std::runtime_error("a rank says nothing");
      known_[said.substr(0, end)] = said.substr(end + 1);
    }
  }
  std::vector<char> get(const std::string& key) override {
    const std::string& value = known_.at(key);
    return {value.begin(), value.end()};
  }
  void wait(const std::vector<std::string>&) override {}
  void wait(const std::vector<std::string>&, const std::chrono::milliseconds&) override {}

  std::vector<std::string> exchange(const std::string& mine) {
    auto all = exchange_(mine);
    if (!all) throw std::runtime_error(all.error().message);
    return std::move(*all);
  }

 private:
  const Exchange& exchange_;
  std::map<std::string, std::string> known_;
};

class GlooCollective final : public Collective {
 public:
  GlooCollective(uint32_t rank, uint32_t size)
      : context_(std::make_shared<gloo::rendezvous::Context>(static_cast<int>(rank),
                                                             static_cast<int>(size))) {}

  void connect(const Exchange& exchange, milliseconds timeout);

  uint32_t rank() const override { return static_cast<uint32_t>(context_->rank); }
  uint32_t size() const override { return static_cast<uint32_t>(context_->size); }

  void all_gather(device::Stream&, const std::byte* part, std::span<const size_t> bytes,
                  std::byte* all) override {
    attempt([&] { gather(part, bytes, all); });
  }
  void sum_on_first(std::span<uint64_t> values) override {
    if (values.empty()) return;
    attempt([&] {
      gloo::AllreduceOptions options(context_);
      options.setOutput(values.data(), values.size());
      using Sum = void (*)(void*, const void*, const void*, size_t);
      options.setReduceFunction(static_cast<Sum>(&gloo::sum<uint64_t>));
      gloo::allreduce(options);
    });
  }
  void tell_under_way(bool) override {}
  void give_up(const Error& why) override {
    const std::lock_guard lock(mutex_);
    if (health_) health_ = why;
  }
  status health() const override {
    const std::lock_guard lock(mutex_);
    return health_;
  }

 private:
  void gather(const std::byte* part, std::span<const size_t> bytes, std::byte* all) {
    gloo::AllgathervOptions options(context_);
    // Gloo takes what it only reads by a pointer to what it might change.
    options.setInput(reinterpret_cast<char*>(const_cast<std::byte*>(part)), bytes[rank()]);
    options.setOutput(reinterpret_cast<char*>(all), {bytes.begin(), bytes.end()});
    gloo::allgatherv(options);
  }
  // Gloo says by exceptions that a peer is gone or does not answer.
  template <class Call>
  void attempt(const Call& call) {
    if (!health()) return;
    try {
      call();
    } catch (const std::exception& e) {
      give_up(error(Errc::kUnavailable, fmt::format("a rank is lost: {}", e.what())));
    }
  }

  std::shared_ptr<gloo::rendezvous::Context> context_;
  mutable std::mutex mutex_;
  status health_;
};

// Throws what Gloo throws. A port of the loopback device is open to every process of this host
// while a pair connects: that the right ones did is seen by what only they know.
void GlooCollective::connect(const Exchange& exchange, milliseconds timeout) {
  std::string nonce(kNonceBytes, '\0');
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    throw std::runtime_error("the system gives no random bytes");
  }
  ExchangedStore store(exchange);
  const std::vector<std::string> nonces = store.exchange(nonce);
  auto device = gloo::transport::tcp::CreateDevice(gloo::transport::tcp::attr("127.0.0.1"));
  context_->setTimeout(timeout);
  context_->connectFullMesh(store, device);

  std::string seen(size() * kNonceBytes, '\0');
  gather(reinterpret_cast<const std::byte*>(nonce.data()), std::vector<size_t>(size(), kNonceBytes),
         reinterpret_cast<std::byte*>(seen.data()));
  for (uint32_t r = 0; r < size(); ++r) {
    if (seen.compare(r * kNonceBytes, kNonceBytes, nonces.at(r)) != 0) {
      throw std::runtime_error(fmt::format("a stranger answers for rank {}", r));
    }
  }
}

}  // namespace

result<std::unique_ptr<Collective>> connect_gloo(uint32_t rank, uint32_t size,
                                                 const Exchange& exchange, milliseconds timeout) {
  try {
    auto collective = std::make_unique<GlooCollective>(rank, size);
    collective->connect(exchange, timeout);
    return std::unique_ptr<Collective>(std::move(collective));
  } catch (const std::exception& e) {
    return error(Errc::kUnavailable,
                 fmt::format("rank {} of {} does not find the others: {}", rank, size, e.what()));
  }
}

}  // namespace baton::collective
