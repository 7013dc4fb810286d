#include "router/traces/otlp_tls.h"

#include <boost/asio/ssl/context.hpp>

namespace baton::router {

std::shared_ptr<boost::asio::ssl::context> make_otlp_tls() {
  using boost::asio::ssl::context;
  auto tls = std::make_shared<context>(context::tls_client);
  SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  // Where there are none, nobody is believed: each attempt says so.
  boost::system::error_code no_authorities;
  tls->set_default_verify_paths(no_authorities);
  tls->set_verify_mode(boost::asio::ssl::verify_peer);
  return tls;
}

}  // namespace baton::router
