#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/clock.h"
#include "common/net/name_lookup.h"
#include "common/net/rpc.h"
#include "router/discovery/service_place.h"

namespace baton::router {

// Where workers are, as an operator says it: "host:port" is one worker; "dns:host:port" is one at
// each address that the name has, now and later; "k8s:NAMESPACE/SERVICE:PORT" is one at each
// endpoint that the Kubernetes API says the Service has (slice_watch.h).
struct WorkerPlace {
  net::HostPort where;  // empty of a Service
  bool watched = false;
  std::optional<ServicePlace> service;
};
// kInvalidArgument names the text.
result<WorkerPlace> parse_worker_place(std::string_view text);

// One name that stands for many workers, looked up again and again: a headless Service of
// Kubernetes has an address for each of its pods. On the thread of the io_context; nothing blocks.
class NameWatch {
 public:
  // host:port of each address, at most kMost of them; of one family, where the name has both, since
  // they would lead to the same workers. None: there is no such name.
  using Found = std::function<void(const std::vector<std::string>& addresses)>;
  static constexpr size_t kMost = 1024;

  // `found` hears of each look that was answered, soon after the start and then every `every`. What
  // a name server fails to answer is logged, once, and changes nothing.
  NameWatch(boost::asio::io_context& io, net::HostPort name, Duration every, Found found,
            net::NameLookup lookup = net::ask_system);

 private:
  void look();
  void answered(const net::FoundName& name);

  const net::HostPort name_;
  const Duration every_;
  const Found found_;
  bool failing_ = false;
  boost::asio::steady_timer timer_;
  net::NameQuery query_;
  std::shared_ptr<void> alive_ = std::make_shared<char>();  // for the timer
};

}  // namespace baton::router
