#pragma once

#include <string>

namespace baton::cli {

// The host to connect to where a server listens on `host`: an address that means "any" is reached
// over loopback.
std::string reachable_host(const std::string& host);

// `host` without the brackets that an IPv6 address may be written in.
std::string without_brackets(const std::string& host);

}  // namespace baton::cli
