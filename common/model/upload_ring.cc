#include "common/model/upload_ring.h"

namespace baton::model {

result<UploadRing> UploadRing::create(device::Device& device, device::Stream& stream) {
  UploadRing ring;
  ring.device_ = &device;
  for (Buffer& b : ring.buffers_) {
    BATON_TRY(b.memory, device.allocate_host(kPieceBytes));
    b.copied = stream.make_event();
    stream.record(*b.copied);
  }
  return ring;
}

std::byte* UploadRing::next() {
  at_ = (at_ + 1) % buffers_.size();
  buffers_[at_].copied->wait();
  return buffers_[at_].memory.data();
}

void UploadRing::send(device::Stream& stream, std::byte* to, size_t bytes) {
  device_->copy(stream, to, buffers_[at_].memory.data(), bytes);
  stream.record(*buffers_[at_].copied);
}

}  // namespace baton::model
