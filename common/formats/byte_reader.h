#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>

namespace baton::formats {

// A cursor over untrusted bytes. A read past the end fails and moves nothing. Numbers are
// little-endian, as every format here and every machine that Baton runs on.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t remaining() const { return bytes_.size() - offset_; }
  std::span<const std::byte> read_so_far() const { return bytes_.first(offset_); }

  template <class T>
  bool read(T* out) {
    static_assert(std::is_arithmetic_v<T>);
    if (remaining() < sizeof(T)) return false;
    std::memcpy(out, bytes_.data() + offset_, sizeof(T));
    offset_ += sizeof(T);
    return true;
  }
  bool take(uint64_t count, std::span<const std::byte>* out) {
    if (remaining() < count) return false;
    *out = bytes_.subspan(offset_, count);
    offset_ += count;
    return true;
  }
  bool text(uint64_t count, std::string_view* out) {
    std::span<const std::byte> taken;
    if (!take(count, &taken)) return false;
    *out = {reinterpret_cast<const char*>(taken.data()), taken.size()};
    return true;
  }

 private:
  std::span<const std::byte> bytes_;
  size_t offset_ = 0;
};

}  // namespace baton::formats
