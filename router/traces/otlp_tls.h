#pragma once

#include <memory>

namespace boost::asio::ssl {
class context;
}

namespace baton::router {

// TLS 1.2 or newer to a collector, which is believed if a certificate of the system's authorities
// says its name. OpenSSL takes others from SSL_CERT_FILE and SSL_CERT_DIR. Reads files.
std::shared_ptr<boost::asio::ssl::context> make_otlp_tls();

}  // namespace baton::router
