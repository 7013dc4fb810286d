#pragma once

#include <boost/asio/ip/address.hpp>
#include <boost/asio/ssl/host_name_verification.hpp>
#include <string>

namespace baton::net {

// Before the handshake of a client's asio::ssl::stream: says which host is meant (an address is no
// name), and believes its certificate alone. Without the dot at the name's end, which only keeps
// the resolver from its search list and is in no certificate.
template <class Stream>
void expect_host(Stream& stream, std::string host) {
  if (host.ends_with('.')) host.pop_back();
  boost::system::error_code is_name;
  boost::asio::ip::make_address(host, is_name);
  if (is_name) SSL_set_tlsext_host_name(stream.native_handle(), host.c_str());
  stream.set_verify_callback(boost::asio::ssl::host_name_verification(host));
}

}  // namespace baton::net
