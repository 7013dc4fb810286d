#include "kvtransfer/raw_ucx.h"

#include <fmt/format.h>
#include <poll.h>
#include <ucp/api/ucp.h>

#include <cstring>

#include "kvtransfer/ucx_worker.h"

namespace baton::kvtransfer {
namespace {

class Raw final : public RawUcx {
 public:
  explicit Raw(std::unique_ptr<UcxWorker> worker) : worker_(std::move(worker)) {}
  ~Raw() override {
    if (rkey_ != nullptr) ucp_rkey_destroy(rkey_);
    worker_.reset();
  }
  status allocate(size_t bytes) {
    BATON_TRY(memory_, worker_->allocate(bytes));
    std::memset(memory_.data(), 0, bytes);
    return {};
  }

  std::span<std::byte> memory() const override { return memory_; }
  std::string address() const override {
    const Location here{reinterpret_cast<uint64_t>(memory_.data()), worker_->address().size()};
    return std::string(reinterpret_cast<const char*>(&here), sizeof here) + worker_->address() +
           worker_->memory_key();
  }

  status connect(std::string_view address) override {
    Location there;
    std::memcpy(&there, address.data(), sizeof there);
    base_ = there.base;
    const std::string worker(address.substr(sizeof there, there.address_bytes));
    const std::string key(address.substr(sizeof there + there.address_bytes));
    ucp_ep_params_t params{};
    params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS;
    params.address = reinterpret_cast<const ucp_address_t*>(worker.data());
    ucs_status_t s = ucp_ep_create(worker_->handle(), &params, &ep_);
    if (s == UCS_OK) s = ucp_ep_rkey_unpack(ep_, key.data(), &rkey_);
    if (s == UCS_OK) return {};
    return error(Errc::kUnavailable, fmt::format("raw UCX: {}", ucs_status_string(s)));
  }

  status read(std::span<const GetOp> ops, size_t window) override {
    ucp_request_param_t param{};
    param.op_attr_mask =
        UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_MEMH;
    param.cb.send = [](void* request, ucs_status_t, void* raw) {
      ucp_request_free(request);
      --static_cast<Raw*>(raw)->under_way_;
    };
    param.user_data = this;
    param.memh = worker_->memory();
    for (const GetOp& op : ops) {
      for (uint64_t i = 0; i < op.count; ++i) {  // UCX knows no strides
        while (under_way_ >= window) BATON_CHECK_OK(wait(-1));
        const ucs_status_ptr_t request =
            ucp_get_nbx(ep_, op.local + i * op.local_stride, op.bytes,
                        base_ + op.remote_offset + i * op.remote_stride, rkey_, &param);
        if (UCS_PTR_IS_ERR(request)) return error(Errc::kUnavailable, "raw UCX: get");
        if (request != nullptr) ++under_way_;
      }
    }
    while (under_way_ > 0) BATON_CHECK_OK(wait(-1));
    return {};
  }

  void serve(int stop_fd) override {
    while (wait(stop_fd)) {
      ::pollfd stop{stop_fd, POLLIN, 0};
      if (::poll(&stop, 1, 0) == 1) return;
    }
  }

 private:
  struct Location {
    uint64_t base = 0, address_bytes = 0;
  };
  // Progress, or else sleep until there can be some.
  status wait(int other_fd) {
    if (ucp_worker_progress(worker_->handle()) != 0) return {};
    BATON_TRY(const bool armed, worker_->arm());
    if (!armed) return {};
    ::pollfd fds[2] = {{worker_->event_fd(), POLLIN, 0}, {other_fd, POLLIN, 0}};
    ::poll(fds, other_fd >= 0 ? 2 : 1, 1000);
    return {};
  }

  std::unique_ptr<UcxWorker> worker_;
  std::span<std::byte> memory_;
  ucp_ep_h ep_ = nullptr;
  ucp_rkey_h rkey_ = nullptr;
  uint64_t base_ = 0;
  size_t under_way_ = 0;
};

}  // namespace

result<std::unique_ptr<RawUcx>> RawUcx::create(std::string_view tls, size_t bytes) {
  UcxWorkerOptions options{.tls = std::string(tls), .name = "raw", .one_sided = true};
  if (tls == "shm") {
    options.tls = "sysv";
  } else {
    options.network = true;
    options.net_devices = "lo";
  }
  BATON_TRY(std::unique_ptr<UcxWorker> worker, UcxWorker::create(options));
  auto raw = std::make_unique<Raw>(std::move(worker));
  BATON_CHECK_OK(raw->allocate(bytes));
  return std::unique_ptr<RawUcx>(std::move(raw));
}

}  // namespace baton::kvtransfer
