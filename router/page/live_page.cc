#include "router/page/live_page.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/sha.h>

#include <array>

#include "router/page/page_text.h"

namespace baton::router {
namespace {

// SHA-256 in base64, as Content-Security-Policy wants it.
std::string digest(std::string_view text) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> raw{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), raw.data());
  std::array<unsigned char, 4 * ((SHA256_DIGEST_LENGTH + 2) / 3) + 1> base64{};
  const int size = EVP_EncodeBlock(base64.data(), raw.data(), raw.size());
  return {reinterpret_cast<const char*>(base64.data()), static_cast<size_t>(size)};
}

void put(std::string& document, std::string_view place, std::string_view text) {
  document.replace(document.find(place), place.size(), text);
}

// Nothing but its own style and script, by their digests; it may ask nobody but this router, and no
// other page may show it in a frame.
std::string policy() {
  return fmt::format(
      "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; img-src data:; "
      "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
      "require-trusted-types-for 'script'; trusted-types 'none'",
      digest(page_text::kScript), digest(page_text::kStyle));
}

}  // namespace

LivePage::LivePage() : document_(page_text::kDocument) {
  put(document_, "{{style}}", page_text::kStyle);
  put(document_, "{{script}}", page_text::kScript);
  etag_ = fmt::format("\"{}\"", digest(document_));
  headers_ = fmt::format(
      "etag: {}\r\ncache-control: no-cache\r\ncontent-security-policy: {}\r\n"
      "x-content-type-options: nosniff\r\nx-frame-options: DENY\r\n"
      "referrer-policy: no-referrer\r\ncross-origin-opener-policy: same-origin\r\n"
      "cross-origin-resource-policy: same-origin\r\n",
      etag_, policy());
}

HttpReply LivePage::reply(std::string_view if_none_match) const {
  HttpReply reply{.content_type = "text/html; charset=utf-8", .headers = headers_};
  const bool has_it = if_none_match == "*" || if_none_match.find(etag_) != std::string_view::npos;
  if (has_it) {
    reply.status = HttpStatus::kNotModified;
  } else {
    reply.body = document_;
  }
  return reply;
}

}  // namespace baton::router
