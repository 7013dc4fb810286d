#pragma once

#include <cstdint>
#include <string>

namespace baton::cli {

// "host:port", an IPv6 host in brackets; what is listened on and what stands in a URL.
std::string host_port(const std::string& host, uint16_t port);

// The host to connect to where a server listens on `host`: an address that means "any" is reached
// over loopback.
std::string reachable_host(const std::string& host);

// `host` without the brackets that an IPv6 address may be written in.
std::string without_brackets(const std::string& host);

}  // namespace baton::cli
