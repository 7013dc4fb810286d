#pragma once

#include <string>
#include <string_view>

#include "router/http/exchange.h"

namespace baton::router {

// The page at "/" (docs/live_page.md): one document with its style and script in it, which asks
// /debug/state for all that it shows. It is the same for everybody and says nothing of the cluster.
class LivePage {
 public:
  LivePage();

  // `if_none_match`: as the client sent it; one that has this page is told so.
  HttpReply reply(std::string_view if_none_match) const;

 private:
  std::string document_;
  std::string etag_;
  std::string headers_;
};

}  // namespace baton::router
