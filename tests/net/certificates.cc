#include "tests/net/certificates.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>

#include <cstdio>
#include <stdexcept>

namespace baton::net {
namespace {

using Key = std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)>;
using Cert = std::unique_ptr<X509, void (*)(X509*)>;

Key make_key() { return {EVP_EC_gen("P-256"), EVP_PKEY_free}; }

void add(X509* cert, int what, const std::string& value) {
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, what, value.c_str());
  if (extension == nullptr) throw std::runtime_error("no extension " + value);
  X509_add_ext(cert, extension, -1);
  X509_EXTENSION_free(extension);
}

Cert make_cert(EVP_PKEY* key, const std::string& name, std::chrono::seconds from,
               std::chrono::seconds until) {
  Cert cert(X509_new(), X509_free);
  X509_set_version(cert.get(), X509_VERSION_3);
  uint32_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof(serial));
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert.get()), serial);
  X509_gmtime_adj(X509_getm_notBefore(cert.get()), from.count());
  X509_gmtime_adj(X509_getm_notAfter(cert.get()), until.count());
  X509_set_pubkey(cert.get(), key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(cert.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return cert;
}

// Written beside and put in place at once, as files are that a process reads meanwhile.
template <class Write>
void write(const std::filesystem::path& path, Write&& pem) {
  const std::string fresh = path.string() + ".new";
  FILE* file = std::fopen(fresh.c_str(), "w");
  if (file == nullptr || pem(file) != 1 || std::fclose(file) != 0) {
    throw std::runtime_error("cannot write " + fresh);
  }
  chmod(fresh.c_str(), S_IRUSR | S_IWUSR);
  std::filesystem::rename(fresh, path);
}

}  // namespace

Authority::Authority(const std::string& name)
    : key_(make_key()),
      cert_(make_cert(key_.get(), name, std::chrono::hours(-1), std::chrono::hours(1))) {
  X509_set_issuer_name(cert_.get(), X509_get_subject_name(cert_.get()));
  add(cert_.get(), NID_basic_constraints, "critical,CA:TRUE");
  add(cert_.get(), NID_key_usage, "critical,keyCertSign");
  X509_sign(cert_.get(), key_.get(), EVP_sha256());
}

TlsFiles Authority::issue(const std::filesystem::path& folder, const std::string& name,
                          const Asked& asked) const {
  const Key key = make_key();
  const Cert cert = make_cert(key.get(), name, asked.from, asked.until);
  X509_set_issuer_name(cert.get(), X509_get_subject_name(cert_.get()));
  std::string names;
  for (const std::string& dns : asked.dns_names) names += (names.empty() ? "DNS:" : ",DNS:") + dns;
  if (!names.empty()) add(cert.get(), NID_subject_alt_name, names);
  X509_sign(cert.get(), key_.get(), EVP_sha256());
  const TlsFiles files{folder / (name + ".crt"), folder / (name + ".key"), folder / "ca.crt"};
  write(files.cert, [&](FILE* f) { return PEM_write_X509(f, cert.get()); });
  write(files.key, [&](FILE* f) {
    return PEM_write_PrivateKey(f, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  write(files.ca, [&](FILE* f) { return PEM_write_X509(f, cert_.get()); });
  return files;
}

}  // namespace baton::net
