#include "common/net/wire.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include <boost/asio/error.hpp>
#include <boost/asio/ssl/error.hpp>
#include <string_view>

namespace baton::net {
namespace {

using boost::system::error_code;

constexpr std::string_view kExporter = "EXPORTER-Channel-Binding";  // RFC 9266
constexpr size_t kBindingBytes = 32;

Error denied(std::string why) { return error(Errc::kPermissionDenied, std::move(why)); }

bool is_no_tls(error_code ec) {
  if (ec.category() != boost::asio::error::get_ssl_category()) return false;
  switch (ERR_GET_REASON(static_cast<unsigned long>(ec.value()))) {
    case SSL_R_WRONG_VERSION_NUMBER:
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_PACKET_LENGTH_TOO_LONG:
      return true;
    default:
      return false;
  }
}

// Why the handshake ended.
Error why_not(SSL* tls, bool dialled, error_code ec) {
  const long verdict = SSL_get_verify_result(tls);
  if (verdict == X509_V_ERR_HOSTNAME_MISMATCH) {
    return denied(std::string("its certificate is not of a ") +
                  (dialled ? "worker" : "router or worker") + ": DNS name '" + kTlsWorkerName +
                  "' is missing");
  }
  if (verdict != X509_V_OK) {
    return denied(std::string("its certificate is not believed: ") +
                  X509_verify_cert_error_string(verdict));
  }
  if (is_no_tls(ec)) return denied("it speaks no TLS, which is needed here");
  return denied("no TLS with it: " + ec.message());
}

void ask_for_names(SSL* tls, bool dialled) {
  SSL_set_hostflags(tls, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT | X509_CHECK_FLAG_NO_WILDCARDS);
  SSL_set1_host(tls, kTlsWorkerName);
  if (!dialled) SSL_add1_host(tls, kTlsRouterName);
}

}  // namespace

void Wire::shake_hands(Tls& tls, bool dialled, std::function<void(const status&)> done) {
  context_ = tls.context();
  tls_ = std::make_unique<Stream>(socket_, *context_);
  secure_ = true;
  ask_for_names(tls_->native_handle(), dialled);
  tls_->async_handshake(dialled ? Stream::client : Stream::server,
                        [this, dialled, done = std::move(done)](error_code ec) {
                          if (!ec) return done({});
                          plain_peer_ = is_no_tls(ec);
                          done(why_not(tls_->native_handle(), dialled, ec));
                        });
}

result<std::string> Wire::channel_binding() {
  if (!secure_) return std::string();
  unsigned char out[kBindingBytes];
  const int made = SSL_export_keying_material(tls_->native_handle(), out, sizeof(out),
                                              kExporter.data(), kExporter.size(), nullptr, 0, 0);
  if (made != 1) return error(Errc::kInternal, "TLS gives no channel binding");
  return std::string(reinterpret_cast<const char*>(out), sizeof(out));
}

Error Wire::why(error_code ec) const {
  if (ec == boost::asio::ssl::error::stream_truncated) ec = boost::asio::error::eof;
  if (ec.category() != boost::asio::error::get_ssl_category()) {
    return error(Errc::kUnavailable, ec.message());
  }
  return denied("TLS: " + ec.message());  // an alert: the peer does not believe us
}

void Wire::close() {
  error_code ignored;  // the socket is given up either way
  socket_.shutdown(tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
}

// Type 20 to 23, version 3.1 to 3.4: a length of over 64 KiB, were it a frame's.
bool begins_tls(const std::byte* b) {
  const auto at = [b](size_t i) { return std::to_integer<unsigned>(b[i]); };
  return at(0) >= 20 && at(0) <= 23 && at(1) == 3 && at(2) >= 1 && at(2) <= 4;
}

}  // namespace baton::net
