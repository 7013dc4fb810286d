#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "router/http/exchange.h"
#include "router/openai/error.h"

namespace baton::router {

// Whether a request is meant for this server. A web page that has its own name resolve to an
// address of ours (DNS rebinding) makes the operator's browser talk to us as that page's server;
// the browser then still says that name, in Host and Origin. An address as such cannot be
// rebound, so that addresses and "localhost" pass always.
class HostCheck {
 public:
  // Names beside those, without ports; "*": any, which switches the check off. With none, the check
  // is only made where `on_loopback` and nobody needs a key: else a browser has no more access than
  // anybody.
  HostCheck(std::vector<std::string> allowed, bool on_loopback);

  // `open`: nobody needs a key. 403.
  api_status check(const HttpHead& head, bool open) const;

 private:
  bool allows(std::string_view host) const;

  std::vector<std::string> allowed_;  // in lower case
  bool any_ = false;
  bool on_loopback_;
};

}  // namespace baton::router
