#include <cstdint>

#include "common/net/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)baton::net::parse_frame_body(std::as_bytes(std::span(data, size)));
  return 0;
}
