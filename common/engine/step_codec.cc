#include "common/engine/step_codec.h"

#include <cstring>
#include <type_traits>

namespace baton::engine {
namespace {

template <class T>
concept Plain = std::is_trivially_copyable_v<T>;

class Writer {
 public:
  explicit Writer(std::vector<std::byte>* out) : out_(out) { out_->clear(); }

  template <Plain T>
  void field(const T& value) {
    append(&value, sizeof value);
  }
  template <Plain T>
  void field(const std::vector<T>& values) {
    field(values.size());
    append(values.data(), values.size() * sizeof(T));
  }
  template <class T, class Add, class Each>
  void list(const std::vector<T>& values, const Add&, const Each& each) {
    field(values.size());
    for (const T& value : values) each(value);
  }

 private:
  void append(const void* data, size_t bytes) {
    const auto* from = static_cast<const std::byte*>(data);
    out_->insert(out_->end(), from, from + bytes);
  }
  std::vector<std::byte>* out_;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : left_(bytes) {}

  template <Plain T>
  void field(T& value) {
    take(&value, sizeof value);
  }
  template <Plain T>
  void field(std::vector<T>& values) {
    const size_t count = size_of_list(sizeof(T));
    values.resize(count);
    take(values.data(), count * sizeof(T));
  }
  // `add` makes the next entry.
  template <class T, class Add, class Each>
  void list(std::vector<T>&, const Add& add, const Each& each) {
    const size_t count = size_of_list(1);
    for (size_t i = 0; i < count && ok_; ++i) each(add());
  }
  bool at_end() const { return ok_ && left_.empty(); }

 private:
  // Of a list whose entries take at least so many bytes each.
  size_t size_of_list(size_t entry_bytes) {
    size_t count = 0;
    field(count);
    if (count > left_.size() / entry_bytes) ok_ = false;
    return ok_ ? count : 0;
  }
  void take(void* to, size_t bytes) {
    if (bytes > left_.size()) ok_ = false;
    if (!ok_ || bytes == 0) return;
    std::memcpy(to, left_.data(), bytes);
    left_ = left_.subspan(bytes);
  }
  std::span<const std::byte> left_;
  bool ok_ = true;
};

// How the next entry is made of a list that is read; never called where one is written.
template <class Batch, class T>
auto adder(Batch&, std::vector<T>& values) {
  return [&values]() -> T& { return values.emplace_back(); };
}
template <class Batch, class T>
int adder(Batch&, const std::vector<T>&) {
  return 0;
}
// With the memory of an earlier step's.
auto adder(StepBatch& batch, std::vector<StepSequence>&) {
  return [&batch]() -> StepSequence& { return batch.add_sequence(); };
}

// All that a step is given, for either direction.
template <class Archive, class Batch>
void fields(Archive& a, Batch& batch) {
  a.field(batch.step);
  a.list(batch.opens, adder(batch, batch.opens), [&](auto& open) {
    a.field(open.slot);
    a.field(open.params);
    a.field(open.logit_bias);
    a.field(open.banned_until_min);
    a.field(open.tokens);
    a.field(open.prompt_tokens);
    a.field(open.choice);
  });
  a.list(batch.sequences, adder(batch, batch.sequences), [&](auto& s) {
    a.field(s.position);
    a.field(s.num_rows);
    a.field(s.tokens);
    a.field(s.last_of);
    a.field(s.block_table);
    a.field(s.digest);
    a.field(s.prompt_logprobs);
    a.field(s.next_tokens);
  });
  a.list(batch.samples, adder(batch, batch.samples), [&](auto& sample) {
    a.field(sample.sequence);
    a.field(sample.slot);
  });
  a.list(batch.block_copies, adder(batch, batch.block_copies), [&](auto& copy) {
    a.field(copy.first);
    a.field(copy.second);
  });
  a.field(batch.arrived);
  a.field(batch.told_layers);
}

}  // namespace

void encode(const StepBatch& batch, std::vector<std::byte>* out) {
  Writer writer(out);
  fields(writer, batch);
}

status decode(std::span<const std::byte> bytes, StepBatch* batch) {
  batch->clear();
  Reader reader(bytes);
  fields(reader, *batch);
  if (reader.at_end()) return {};
  return error(Errc::kDataCorrupt, "not the bytes of one step");
}

}  // namespace baton::engine
