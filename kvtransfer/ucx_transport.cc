#include "kvtransfer/ucx_transport.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <iterator>

#include "common/base/log.h"
#include "kvtransfer/host_identity.h"
#include "kvtransfer/memory_map.h"
#include "kvtransfer/ucx_transport_impl.h"

namespace baton::kvtransfer {
namespace ucx {
namespace {

constexpr int kMaxProgress = 256;  // of UCX's calls, in one poll()
// Of what was read, in one poll(): it is still in the CPU's cache when it is looked at then.
constexpr uint64_t kMaxPolledBytes = 256u << 10;
constexpr int kMaxClosingProgress = 100000;  // for the last goodbyes

}  // namespace

status UcxTransport::start() {
  BATON_TRY(const SplitTls tls, split_tls(options_.tls));
  shared_memory_tls_ = tls.shared_memory;
  if (!shared_memory_tls_.empty()) BATON_CHECK_OK(add_shared_memory());
  reads_network_ = !tls.network.empty();
  BATON_CHECK_OK(start_network(reads_network_ ? tls.network : "tcp"));
  if (::getrandom(token_.data(), token_.size(), 0) != static_cast<ssize_t>(token_.size())) {
    return error(Errc::kIo, "the system gives no random bytes");
  }
  publish_address();
  endpoint_.host = host_identity();
  endpoint_.pid = ::getpid();
  endpoint_.software = ucx_software();
  return {};
}

// One more way, the first that works here of what was not tried yet. Who is not read has a key all
// the same, of memory that nobody maps: peers' keys are compared with it.
status UcxTransport::add_shared_memory() {
  status added = error(Errc::kUnavailable, "no shared memory is left to try");
  while (!shared_memory_tls_.empty()) {
    const size_t comma = std::min(shared_memory_tls_.find(','), shared_memory_tls_.size());
    auto worker = UcxWorker::create(
        {.tls = shared_memory_tls_.substr(0, comma), .name = options_.name, .one_sided = true});
    shared_memory_tls_.erase(0, comma + 1);
    if (worker && !options_.is_read) {
      if (const auto memory = (*worker)->allocate(1); !memory) worker = memory.error();
    }
    if (worker) {
      shm_.push_back(std::move(*worker));
      return {};
    }
    added = worker.error();
  }
  return added;
}

void UcxTransport::publish_address() {
  const bool shares = options_.is_read && !shm_.empty();
  endpoint_.address = encode({.token = token_,
                              .shared_memory = shares ? shm_[0]->address() : "",
                              .network = net_->address()});
}

status UcxTransport::start_network(const std::string& tls) {
  BATON_TRY(net_, UcxWorker::create({.tls = tls,
                                     .net_devices = options_.net_devices,
                                     .tcp_port_range = options_.tcp_port_range,
                                     .name = options_.name,
                                     .network = true}));
  BATON_CHECK_OK(add_handlers(*net_, *this));
  reply_type_ = make_reply_type();
  if (reply_type_ == 0) return error(Errc::kUnavailable, "UCX: no data type for replies");
  return {};
}

UcxTransport::~UcxTransport() {
  ending_ = true;
  for (auto& [id, peer] : peers_) {
    if (!peer->closing) close(id);
  }
  const auto busy = [this] {
    return std::ranges::any_of(peers_, [](const auto& p) { return !p.second->ep_closed; });
  };
  for (int i = 0; busy() && i < kMaxClosingProgress; ++i) {
    net_->progress(1);
  }
  for (auto& [id, peer] : peers_) {
    // UCX 1.13 ends the process if a worker ends with a request that its owner still holds.
    if (peer->close_request != nullptr) ucp_request_free(peer->close_request);
  }
  net_.reset();  // which may still call back
  shm_.clear();
  if (reply_type_ != 0) drop_reply_type(reply_type_);
}

// Of the first kind that the system gives so much of; private if it gives none. Not touched yet.
result<std::span<std::byte>> UcxTransport::allocate_shared(size_t bytes) {
  for (;;) {
    BATON_TRY(const std::span<std::byte> memory, shm_[0]->allocate(bytes));
    endpoint_.region.key = shm_[0]->memory_key();
    const std::string_view kind = memory_kind(memory.data());
    endpoint_.shared_memory = !endpoint_.host.empty() && (kind == "posix" || kind == "sysv");
    if (endpoint_.shared_memory || shared_memory_tls_.empty()) {
      LOG_INFO("KV cache memory: {} MiB, {}", bytes >> 20, kind);
      return memory;
    }
    shm_.clear();
    BATON_CHECK_OK(add_shared_memory());
    publish_address();
  }
}

result<std::span<std::byte>> UcxTransport::allocate(size_t bytes, Sharing sharing) {
  if (!memory_.empty()) return error(Errc::kInternal, "the cache memory is allocated already");
  if (!shm_.empty() && options_.is_read) {
    BATON_TRY(memory_, allocate_shared(bytes));
    if (!endpoint_.shared_memory) {
      LOG_WARN(
          "the system gives no {} MiB of shared memory for the KV cache: workers of this host read "
          "it more slowly",
          bytes >> 20);
    }
    prefer_huge_pages(memory_.data(), bytes);
    BATON_CHECK_OK(zero_fill(memory_));
  } else {
    BATON_TRY(private_memory_, allocate_host_buffer(bytes, sharing));
    memory_ = {private_memory_.get(), bytes};
    LOG_INFO("KV cache memory: {} MiB, private", bytes >> 20);
  }
  if (options_.is_read) {
    endpoint_.region.base = reinterpret_cast<uint64_t>(memory_.data());
    endpoint_.region.bytes = bytes;
  }
  return memory_;
}

bool UcxTransport::poll(std::vector<TransportEvent>& events) {
  bool more = true;
  polled_bytes_ = 0;
  for (int i = 0; more && i < kMaxProgress && polled_bytes_ < kMaxPolledBytes; ++i) {
    more = net_->progress(1);
  }
  forget_closed();
  std::ranges::move(events_, std::back_inserter(events));
  events_.clear();
  return more;
}

result<bool> UcxTransport::arm() {
  if (!events_.empty()) return false;
  return net_->arm();
}

std::string encode(const Address& address) {
  const auto length = static_cast<uint32_t>(address.shared_memory.size());
  std::string bytes(reinterpret_cast<const char*>(address.token.data()), address.token.size());
  bytes.append(reinterpret_cast<const char*>(&length), sizeof length);
  return bytes + address.shared_memory + address.network;
}

result<Address> decode_address(std::string_view bytes) {
  Address address;
  uint32_t length = 0;
  if (bytes.size() < sizeof(Token) + sizeof length) {
    return error(Errc::kInvalidArgument, "no address of a UCX transport");
  }
  std::memcpy(address.token.data(), bytes.data(), sizeof(Token));
  std::memcpy(&length, bytes.data() + sizeof(Token), sizeof length);
  bytes.remove_prefix(sizeof(Token) + sizeof length);
  if (length > bytes.size()) return error(Errc::kInvalidArgument, "a UCX address cut short");
  address.shared_memory = bytes.substr(0, length);
  address.network = bytes.substr(length);
  return address;
}

}  // namespace ucx

result<std::unique_ptr<Transport>> make_ucx_transport(const UcxOptions& options) {
  auto transport = std::make_unique<ucx::UcxTransport>(options);
  BATON_CHECK_OK(transport->start());
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace baton::kvtransfer
