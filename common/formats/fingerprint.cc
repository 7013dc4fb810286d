#include "common/formats/fingerprint.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

namespace baton::formats {
namespace {

constexpr size_t kSampleBytes = 4096;

class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new(), EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void bytes(const void* data, size_t size) { EVP_DigestUpdate(context_.get(), data, size); }
  void number(uint64_t n) { bytes(&n, sizeof(n)); }
  // With its length, so that no two sequences of fields read alike.
  void field(const void* data, size_t size) {
    number(size);
    bytes(data, size);
  }
  Fingerprint finish() {
    Fingerprint out;
    EVP_DigestFinal_ex(context_.get(), out.bytes.data(), nullptr);
    return out;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

void add_tensor(const TensorView& tensor, Sha256* hash) {
  hash->field(tensor.name.data(), tensor.name.size());
  const std::string_view type = name(tensor.type);
  hash->field(type.data(), type.size());
  hash->number(tensor.shape.size());
  for (const uint64_t dim : tensor.shape) hash->number(dim);
  if (tensor.data.size() <= 3 * kSampleBytes) {
    hash->bytes(tensor.data.data(), tensor.data.size());
    return;
  }
  const size_t last = tensor.data.size() - kSampleBytes;
  for (const size_t at : {size_t{0}, last / 2, last}) {
    hash->bytes(tensor.data.data() + at, kSampleBytes);
  }
}

}  // namespace

std::string Fingerprint::hex() const {
  std::string out;
  for (const uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

Fingerprint fingerprint(std::span<const std::byte> description,
                        std::span<const TensorView> tensors) {
  std::vector<const TensorView*> order;
  for (const TensorView& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(),
            [](const TensorView* a, const TensorView* b) { return a->name < b->name; });
  Sha256 hash;
  hash.field(description.data(), description.size());
  for (const TensorView* tensor : order) add_tensor(*tensor, &hash);
  return hash.finish();
}

}  // namespace baton::formats
