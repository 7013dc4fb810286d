#pragma once

#include <array>
#include <cstddef>
#include <memory>

#include "common/base/result.h"
#include "common/device/device.h"

namespace baton::model {

// Brings what is read from files to a device in pieces: while one is copied there, the next is read
// into another buffer. Used by one thread.
class UploadRing {
 public:
  static constexpr size_t kPieceBytes = size_t{32} << 20;

  static result<UploadRing> create(device::Device& device, device::Stream& stream);

  // Room for one piece. Blocks until the copy that last read it has been made.
  std::byte* next();
  // Enqueues the copy of what next() gave.
  void send(device::Stream& stream, std::byte* to, size_t bytes);

 private:
  struct Buffer {
    device::Buffer memory;
    std::unique_ptr<device::Event> copied;
  };
  device::Device* device_ = nullptr;
  std::array<Buffer, 3> buffers_;
  size_t at_ = 0;
};

}  // namespace baton::model
