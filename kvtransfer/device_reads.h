#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "kvtransfer/endpoint.h"
#include "kvtransfer/messages.h"

namespace baton::kvtransfer {

// A peer's cache that is mapped here, as DeviceReads numbers it; never used twice.
using DeviceMapId = StrongId<struct DeviceMapIdTag, uint64_t>;

// Reads under way at once, of all peers; and of one of them.
inline constexpr uint32_t kMaxDeviceReads = 4;
inline constexpr size_t kMaxDeviceCells = kMaxDigests;

// Tokens [0, num_tokens) of one block of a peer's cache, and our block that gets them.
struct DeviceBlock {
  BlockId from, to;
  uint32_t position = 0;  // of token 0 in its sequence: digests depend on it
  uint32_t num_tokens = 0;
};

struct DeviceRead {
  uint64_t cookie = 0;
  uint32_t layer_begin = 0, layer_end = 0;
  std::span<const DeviceBlock> blocks;  // layers * blocks are at most kMaxDeviceCells
};

struct DeviceReadEnd {
  uint64_t cookie = 0;
  result<uint64_t> digest;  // kvcache/digest.h, of what was written; an error: part of it may be
};

// Reads a peer's cache in the memory of a GPU of this host into this worker's cache, which is in
// one, too, and lies alike (plan.h). The peer's memory is mapped and only ever read. All calls come
// from one thread (the control thread), and none blocks except map(), for milliseconds.
class DeviceReads {
 public:
  virtual ~DeviceReads() = default;  // waits for reads that are under way

  // What peers need to map() this worker's cache. Without bytes: nobody reads it.
  virtual const DeviceRegion& region() const = 0;

  // Maps a peer's cache; `name` is for the sentence. kUnavailable, kUnsupported: it cannot be read
  // from here.
  virtual result<DeviceMapId> map(const DeviceRegion& theirs, std::string_view name) = 0;
  // No more is read from it. It stays mapped until the reads that are under way have ended.
  virtual void unmap(DeviceMapId id) = 0;

  // Begins a read; `blocks` is copied. Fewer than kMaxDeviceReads are under way. Exactly one end
  // with its cookie comes out of poll(), unless this fails.
  virtual status start(DeviceMapId from, const DeviceRead& read) = 0;
  // Appends what has ended.
  virtual void poll(std::vector<DeviceReadEnd>& ends) = 0;

  // Readable when poll() has something to tell, provided that arm() said true after the last one.
  virtual int event_fd() const = 0;
  virtual bool arm() = 0;  // false: something has ended in between, poll() again

  virtual std::string_view name() const = 0;  // how reads travel: "cuda_ipc"
};

}  // namespace baton::kvtransfer
