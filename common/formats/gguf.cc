#include "common/formats/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "common/formats/byte_reader.h"
#include "common/formats/utf8.h"

// Layout (github.com/ggml-org/ggml/blob/master/docs/gguf.md): "GGUF", u32 version, u64 tensor
// count, u64 key count, the key-value pairs, the tensor entries, padding, the data section. A
// string is a u64 length and its bytes; an array a u32 element type, a u64 count and the elements.

namespace baton::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read in place");

constexpr uint64_t kMaxKeys = 1 << 16;
constexpr uint64_t kMaxTensors = 1 << 18;  // the largest public mixture of experts has 40,000
constexpr size_t kMaxKeyBytes = 65535;     // the format's own limit
constexpr size_t kMaxTensorNameBytes = 256;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMaxAlignment = 1 << 20;
constexpr size_t kMinKeyBytes = 8 + 1 + 4 + 1;             // length, one letter, type, one byte
constexpr size_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;  // ... dims, one dim, type, offset

// Bytes of a value of fixed size; nothing for strings, arrays and unknown types.
std::optional<size_t> fixed_bytes(uint32_t type) {
  switch (static_cast<GgufType>(type)) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return std::nullopt;
  }
  return std::nullopt;
}

template <class T>
T load(std::span<const std::byte> bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

GgufValue scalar(GgufType type, std::span<const std::byte> bytes) {
  switch (type) {
    case GgufType::kU8:
      return uint64_t{load<uint8_t>(bytes)};
    case GgufType::kI8:
      return int64_t{load<int8_t>(bytes)};
    case GgufType::kU16:
      return uint64_t{load<uint16_t>(bytes)};
    case GgufType::kI16:
      return int64_t{load<int16_t>(bytes)};
    case GgufType::kU32:
      return uint64_t{load<uint32_t>(bytes)};
    case GgufType::kI32:
      return int64_t{load<int32_t>(bytes)};
    case GgufType::kU64:
      return load<uint64_t>(bytes);
    case GgufType::kI64:
      return load<int64_t>(bytes);
    case GgufType::kF32:
      return double{load<float>(bytes)};
    case GgufType::kF64:
      return load<double>(bytes);
    case GgufType::kBool:
      return load<uint8_t>(bytes) == 1;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return uint64_t{0};
}

// Where a tensor says it lies; turned into a view once the data section's start is known.
struct Placement {
  uint64_t offset;
  uint64_t bytes;
};

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, const std::string& source)
      : reader_(bytes), source_(source), metadata(source) {}

  status header();
  status keys();
  status tensor_entries();
  status place(std::span<const std::byte> file);

  std::span<const std::byte> header_bytes() const { return reader_.read_so_far(); }

 private:
  result<std::string_view> string(std::string_view what, size_t max_bytes);
  result<GgufValue> value(std::string_view key);
  result<GgufArray> array(std::string_view key);
  status array_strings(std::string_view key, GgufArray* array);
  status tensor_entry();
  result<uint64_t> alignment() const;

  Error bad(std::string_view reason) const {
    return error(Errc::kDataCorrupt, fmt::format("{}: {}", source_, reason));
  }
  Error unsupported(std::string_view reason) const {
    return error(Errc::kUnsupported, fmt::format("{}: {}", source_, reason));
  }
  Error truncated(std::string_view what) const {
    return bad(fmt::format("truncated in {} at byte {}", what, reader_.offset()));
  }
  // "FILE: tensor 'x'", the start of every sentence about a tensor.
  std::string tensor_where(std::string_view name) const {
    return fmt::format("{}: tensor '{}'", source_, printable(name));
  }

  ByteReader reader_;
  const std::string& source_;
  uint64_t tensor_count_ = 0;
  uint64_t key_count_ = 0;
  std::vector<Placement> placements_;  // one a tensor

 public:
  GgufMetadata metadata;
  std::vector<TensorView> tensors;
};

status Parser::header() {
  std::string_view magic;
  if (!reader_.text(4, &magic)) return bad("too short to be a GGUF file");
  if (magic != "GGUF") {
    return bad(fmt::format("not a GGUF file (it starts with '{}')", printable(magic)));
  }
  uint32_t version = 0;
  if (!reader_.read(&version)) return truncated("the header");
  if ((version & 0xffff) == 0) return unsupported("a big-endian GGUF file is not supported");
  if (version != 2 && version != 3) {
    return unsupported(fmt::format("GGUF version {} is not supported, only 2 and 3", version));
  }
  if (!reader_.read(&tensor_count_) || !reader_.read(&key_count_)) return truncated("the header");
  if (key_count_ > kMaxKeys || key_count_ > reader_.remaining() / kMinKeyBytes) {
    return bad(fmt::format("{} metadata keys cannot fit in the file", key_count_));
  }
  if (tensor_count_ > kMaxTensors || tensor_count_ > reader_.remaining() / kMinTensorBytes) {
    return bad(fmt::format("{} tensors cannot fit in the file", tensor_count_));
  }
  return {};
}

result<std::string_view> Parser::string(std::string_view what, size_t max_bytes) {
  uint64_t size = 0;
  std::string_view text;
  if (!reader_.read(&size)) return truncated(what);
  if (size > max_bytes) {
    return bad(fmt::format("{} has {} bytes, more than the {} allowed", what, size, max_bytes));
  }
  if (!reader_.text(size, &text)) return truncated(what);
  if (!is_utf8(text)) return bad(fmt::format("{} is not valid UTF-8", what));
  return text;
}

status Parser::keys() {
  for (uint64_t i = 0; i < key_count_; ++i) {
    BATON_TRY(const std::string_view key, string(fmt::format("metadata key {}", i), kMaxKeyBytes));
    if (key.empty()) return bad(fmt::format("metadata key {} is empty", i));
    BATON_TRY(GgufValue parsed, value(key));
    if (!metadata.add(key, std::move(parsed))) return metadata.bad(key, "is there twice");
  }
  return {};
}

result<GgufValue> Parser::value(std::string_view key) {
  const auto what = [&] { return fmt::format("the value of key '{}'", printable(key)); };
  uint32_t type = 0;
  if (!reader_.read(&type)) return truncated(what());
  if (type == static_cast<uint32_t>(GgufType::kString)) {
    BATON_TRY(const std::string_view text, string(what(), reader_.remaining()));
    return GgufValue(text);
  }
  if (type == static_cast<uint32_t>(GgufType::kArray)) {
    BATON_TRY(const GgufArray parsed, array(key));
    return GgufValue(parsed);
  }
  const std::optional<size_t> size = fixed_bytes(type);
  if (!size) return metadata.bad(key, fmt::format("has the unknown type {}", type));
  std::span<const std::byte> bytes;
  if (!reader_.take(*size, &bytes)) return truncated(what());
  if (type == static_cast<uint32_t>(GgufType::kBool) && load<uint8_t>(bytes) > 1) {
    return metadata.bad(key, "is a bool that is neither 0 nor 1");
  }
  return scalar(static_cast<GgufType>(type), bytes);
}

result<GgufArray> Parser::array(std::string_view key) {
  uint32_t element = 0;
  GgufArray parsed;
  if (!reader_.read(&element) || !reader_.read(&parsed.count)) {
    return truncated(fmt::format("the array of key '{}'", printable(key)));
  }
  parsed.element = static_cast<GgufType>(element);
  if (parsed.element == GgufType::kString) {
    BATON_CHECK_OK(array_strings(key, &parsed));
    return parsed;
  }
  const std::optional<size_t> size = fixed_bytes(element);
  if (!size) {
    return metadata.bad(key, fmt::format("is an array of the unsupported type {}", element));
  }
  if (parsed.count > reader_.remaining() / *size) {
    return metadata.bad(
        key, fmt::format("claims {} elements, more than the file can hold", parsed.count));
  }
  reader_.take(parsed.count * *size, &parsed.bytes);
  const bool bools = parsed.element == GgufType::kBool;
  if (bools && std::any_of(parsed.bytes.begin(), parsed.bytes.end(),
                           [](std::byte b) { return b > std::byte{1}; })) {
    return metadata.bad(key, "holds a bool that is neither 0 nor 1");
  }
  return parsed;
}

status Parser::array_strings(std::string_view key, GgufArray* array) {
  if (array->count > reader_.remaining() / sizeof(uint64_t)) {
    return metadata.bad(
        key, fmt::format("claims {} elements, more than the file can hold", array->count));
  }
  ByteReader start = reader_;
  for (uint64_t i = 0; i < array->count; ++i) {
    uint64_t size = 0;
    std::string_view text;
    if (!reader_.read(&size) || !reader_.text(size, &text)) {
      return truncated(fmt::format("element {} of key '{}'", i, printable(key)));
    }
    if (!is_utf8(text)) {
      return metadata.bad(key, fmt::format("has an element {} that is not valid UTF-8", i));
    }
  }
  start.take(reader_.offset() - start.offset(), &array->bytes);
  return {};
}

status Parser::tensor_entries() {
  for (uint64_t i = 0; i < tensor_count_; ++i) BATON_CHECK_OK(tensor_entry());
  return {};
}

status Parser::tensor_entry() {
  TensorView tensor;
  BATON_TRY(const std::string_view name,
            string(fmt::format("the name of tensor {}", tensors.size()), kMaxTensorNameBytes));
  if (name.empty()) return bad(fmt::format("the name of tensor {} is empty", tensors.size()));
  tensor.name = name;
  const std::string where = tensor_where(name);
  const std::string entry = fmt::format("the entry of tensor '{}'", printable(name));
  uint32_t dims = 0, type = 0;
  if (!reader_.read(&dims)) return truncated(entry);
  if (dims == 0 || dims > kMaxDims) {
    return error(Errc::kDataCorrupt,
                 fmt::format("{}: has {} dimensions, not 1 to {}", where, dims, kMaxDims));
  }
  tensor.shape.resize(dims);
  for (uint64_t& dim : tensor.shape) {
    if (!reader_.read(&dim)) return truncated(entry);
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());  // the file has the innermost first
  Placement placement{};
  if (!reader_.read(&type) || !reader_.read(&placement.offset)) return truncated(entry);
  const std::optional<StorageType> storage = storage_type_from_ggml(type);
  if (!storage) {
    const std::string_view known = ggml_type_name(type);
    if (known.empty()) {
      return error(Errc::kDataCorrupt, fmt::format("{}: unknown type {}", where, type));
    }
    return error(Errc::kUnsupported, fmt::format("{}: type {} is not supported", where, known));
  }
  tensor.type = *storage;
  BATON_TRY(placement.bytes, tensor_bytes(tensor.type, tensor.shape, where));
  placements_.push_back(placement);
  tensors.push_back(std::move(tensor));
  return {};
}

result<uint64_t> Parser::alignment() const {
  constexpr std::string_view kKey = "general.alignment";
  if (!metadata.has(kKey)) return kDefaultAlignment;
  BATON_TRY(const uint64_t alignment, metadata.uint(kKey));
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > kMaxAlignment) {
    return metadata.bad(
        kKey, fmt::format("is {}, not a power of two from 8 to {}", alignment, kMaxAlignment));
  }
  return alignment;
}

status Parser::place(std::span<const std::byte> file) {
  BATON_TRY(const uint64_t alignment, this->alignment());
  const uint64_t start = (reader_.offset() + alignment - 1) & ~(alignment - 1);
  const uint64_t data_bytes = start < file.size() ? file.size() - start : 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const auto [offset, bytes] = placements_[i];
    if (offset % alignment != 0) {
      return error(Errc::kDataCorrupt,
                   fmt::format("{}: its offset {} is not a multiple of the alignment {}",
                               tensor_where(tensors[i].name), offset, alignment));
    }
    if (offset > data_bytes || bytes > data_bytes - offset) {
      return error(Errc::kDataCorrupt,
                   fmt::format("{}: needs {} bytes at offset {} but the file has only {} bytes of "
                               "data",
                               tensor_where(tensors[i].name), bytes, offset, data_bytes));
    }
    tensors[i].data = file.subspan(start + offset, bytes);
  }
  return check_no_overlap(tensors, source_);
}

}  // namespace

result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  BATON_TRY(MappedFile map, MappedFile::open(path));
  Parser parser(map.bytes(), map.path());
  BATON_CHECK_OK(parser.header());
  BATON_CHECK_OK(parser.keys());
  BATON_CHECK_OK(parser.tensor_entries());
  BATON_CHECK_OK(parser.place(map.bytes()));

  GgufFile file;
  file.metadata_ = std::move(parser.metadata);
  file.header_ = parser.header_bytes();
  std::vector<MappedFile> maps;
  maps.push_back(std::move(map));
  BATON_TRY(file.tensors_, TensorFile::create(std::move(maps), std::move(parser.tensors)));
  return file;
}

}  // namespace baton::formats
