#include "router/service/name_watch.h"

#include <utility>

#include "common/base/log.h"

namespace baton::router {
namespace {

constexpr std::string_view kWatched = "dns:";
constexpr std::string_view kService = "k8s:";

}  // namespace

result<WorkerPlace> parse_worker_place(std::string_view text) {
  if (text.starts_with(kService)) {
    BATON_TRY(ServicePlace service, parse_service_place(text.substr(kService.size())));
    return WorkerPlace{{}, true, std::move(service)};
  }
  const bool watched = text.starts_with(kWatched);
  if (watched) text.remove_prefix(kWatched.size());
  BATON_TRY(net::HostPort where, net::split_host_port(text));
  return WorkerPlace{std::move(where), watched, {}};
}

NameWatch::NameWatch(boost::asio::io_context& io, net::HostPort name, Duration every, Found found,
                     net::NameLookup lookup)
    : name_(std::move(name)),
      every_(every),
      found_(std::move(found)),
      timer_(io),
      query_(io.get_executor(), std::move(lookup), name_.host, name_.port) {
  look();
}

void NameWatch::look() {
  query_.ask([this](const net::FoundName& name) { answered(name); });
}

void NameWatch::answered(const net::FoundName& name) {
  const bool unknown = name.failed == boost::asio::error::host_not_found;
  if (name.failed && !unknown) {
    if (!std::exchange(failing_, true)) {
      LOG_WARN("the name {} of workers cannot be looked up: {}", name_.host, name.failed.message());
    }
  } else {
    failing_ = false;
    std::vector<std::string> addresses;
    for (const auto& end : name.endpoints) {
      if (end.protocol() != name.endpoints.front().protocol()) continue;
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
