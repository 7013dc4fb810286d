#include "common/net/tls.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/asio/ssl/context.hpp>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "common/base/log.h"
#include "common/base/private_file.h"

namespace baton::net {
namespace {

using boost::asio::ssl::context;

constexpr int kMaxChain = 8;

Error bad(const char* flag, const std::filesystem::path& path, const std::string& why) {
  return error(Errc::kInvalidArgument,
               std::string(flag) + " '" + path.string() + "' cannot be used: " + why);
}

// What OpenSSL says last, and no more of it later.
std::string openssl_reason() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return reason == nullptr ? "no reason is given" : reason;
}

status check_readable(const char* flag, const std::filesystem::path& path) {
  struct stat about;
  if (stat(path.c_str(), &about) != 0) return bad(flag, path, std::strerror(errno));
  if (!S_ISREG(about.st_mode)) return bad(flag, path, "it is no file");
  if (access(path.c_str(), R_OK) != 0) return bad(flag, path, std::strerror(errno));
  return {};
}

// Peers would refuse it, and not say why to us.
status check_certificate(const X509& cert, const std::filesystem::path& path, const char* name) {
  if (X509_cmp_current_time(X509_get0_notAfter(&cert)) < 0) {
    return bad("tls-cert", path, "it has expired");
  }
  if (X509_cmp_current_time(X509_get0_notBefore(&cert)) > 0) {
    return bad("tls-cert", path, "it is not valid yet");
  }
  const int named = X509_check_host(const_cast<X509*>(&cert), name, std::strlen(name),
                                    X509_CHECK_FLAG_NEVER_CHECK_SUBJECT, nullptr);
  if (named == 1) return {};
  return bad("tls-cert", path, std::string("its DNS names lack '") + name + "'");
}

// TLS 1.3, both sides' certificates asked for, and nothing remembered from one connection to the
// next: each proves anew.
void set_rules(SSL_CTX* tls) {
  SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION);
  SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_verify_depth(tls, kMaxChain);
  SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(tls, 0);
  // The authority may be one that another has signed.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls), X509_V_FLAG_PARTIAL_CHAIN);
  // No passphrase is asked for.
  SSL_CTX_set_default_passwd_cb(tls, [](char*, int, int, void*) { return 0; });
}

result<std::shared_ptr<context>> make_context(const TlsFiles& files, const char* name) {
  BATON_CHECK_OK(check_readable("tls-cert", files.cert));
  BATON_CHECK_OK(check_readable("tls-key", files.key));
  BATON_CHECK_OK(check_readable("tls-ca", files.ca));
  if (const status own = check_private(files.key); !own) {
    return bad("tls-key", files.key, own.error().message);
  }
  auto made = std::make_shared<context>(context::tls);
  SSL_CTX* const tls = made->native_handle();
  set_rules(tls);
  if (SSL_CTX_use_certificate_chain_file(tls, files.cert.c_str()) != 1) {
    return bad("tls-cert", files.cert, "no certificate: " + openssl_reason());
  }
  if (SSL_CTX_use_PrivateKey_file(tls, files.key.c_str(), SSL_FILETYPE_PEM) != 1) {
    return bad("tls-key", files.key, "no key of that certificate: " + openssl_reason());
  }
  if (SSL_CTX_load_verify_file(tls, files.ca.c_str()) != 1) {
    return bad("tls-ca", files.ca, "no certificate: " + openssl_reason());
  }
  BATON_CHECK_OK(check_certificate(*SSL_CTX_get0_certificate(tls), files.cert, name));
  return made;
}

}  // namespace

result<std::shared_ptr<Tls>> Tls::load(const TlsFiles& files, const char* name) {
  if (files.cert.empty() && files.key.empty() && files.ca.empty()) return std::shared_ptr<Tls>();
  if (files.cert.empty() || files.key.empty() || files.ca.empty()) {
    return error(Errc::kInvalidArgument,
                 "tls-cert, tls-key and tls-ca go together: one is missing");
  }
  std::shared_ptr<Tls> tls(new Tls(files, name));
  tls->marks_ = tls->read_marks();
  BATON_TRY(tls->context_, make_context(files, name));
  return tls;
}

std::shared_ptr<context> Tls::context() {
  // First the marks: what changes behind them is seen the next time.
  const Marks marks = read_marks();
  if (marks == marks_) return context_;
  marks_ = marks;
  auto fresh = make_context(files_, name_);
  if (fresh) {
    context_ = std::move(*fresh);
    LOG_INFO("TLS: the certificate was read again");
  } else {
    LOG_WARN("TLS: {}; the certificate before it stays in use", fresh.error().message);
  }
  return context_;
}

Tls::Marks Tls::read_marks() const {
  Marks marks;
  size_t i = 0;
  for (const auto* path : {&files_.cert, &files_.key, &files_.ca}) {
    struct stat about;
    if (stat(path->c_str(), &about) == 0) {
      marks[i] = {about.st_dev, about.st_ino, static_cast<uint64_t>(about.st_size),
                  about.st_mtim.tv_sec * 1'000'000'000 + about.st_mtim.tv_nsec};
    }
    ++i;
  }
  return marks;
}

}  // namespace baton::net
