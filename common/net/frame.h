#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/base/result.h"
#include "common/proto/worker.pb.h"

namespace baton::net {

// A frame on the wire: 4 bytes of length, little-endian, then a serialized proto::Frame.
inline constexpr size_t kFrameHeaderBytes = 4;
inline constexpr uint32_t kMaxFrameBytes = 16u << 20;
inline constexpr uint32_t kMaxHelloBytes = 64u << 10;  // what a stranger may send

// Length announced by a header; kDataCorrupt if it is over `max_bytes`.
result<uint32_t> parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> header,
                                    uint32_t max_bytes = kMaxFrameBytes);

// kDataCorrupt if the bytes are no Frame or carry no known body.
result<proto::Frame> parse_frame_body(std::span<const std::byte> body);

// Header and body appended to `out`; kInvalidArgument if the frame is over kMaxFrameBytes.
status append_frame(const proto::Frame& frame, std::string& out);

}  // namespace baton::net
