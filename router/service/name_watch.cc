#include "router/service/name_watch.h"

#include <utility>

#include "common/base/log.h"

namespace baton::router {
namespace {

constexpr std::string_view kWatched = "dns:";

}  // namespace

result<WorkerPlace> parse_worker_place(std::string_view text) {
  const bool watched = text.starts_with(kWatched);
  if (watched) text.remove_prefix(kWatched.size());
  BATON_TRY(net::HostPort where, net::split_host_port(text));
  return WorkerPlace{std::move(where), watched};
}

NameWatch::NameWatch(boost::asio::io_context& io, net::HostPort name, Duration every, Found found)
    : name_(std::move(name)), every_(every), found_(std::move(found)), resolver_(io), timer_(io) {
  look();
}

void NameWatch::look() {
  resolver_.async_resolve(name_.host, name_.port,
                          [this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code ec,
                                                                      const Results& results) {
                            if (!alive.expired()) answered(ec, results);
                          });
}

void NameWatch::answered(boost::system::error_code ec, const Results& results) {
  const bool unknown = ec == boost::asio::error::host_not_found;
  if (ec && !unknown) {
    if (!std::exchange(failing_, true)) {
      LOG_WARN("the name {} of workers cannot be looked up: {}", name_.host, ec.message());
    }
  } else {
    failing_ = false;
    std::vector<std::string> addresses;
    for (const auto& entry : results) {
      const auto end = entry.endpoint();
      if (end.protocol() != results.begin()->endpoint().protocol()) continue;
      if (addresses.size() == kMost) break;
      addresses.push_back(net::join_host_port(end.address().to_string(), end.port()));
    }
    found_(addresses);
  }
  timer_.expires_after(every_);
  timer_.async_wait([this, alive = std::weak_ptr<void>(alive_)](boost::system::error_code stopped) {
    if (!stopped && !alive.expired()) look();
  });
}

}  // namespace baton::router
