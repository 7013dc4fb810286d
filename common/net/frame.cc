#include "common/net/frame.h"

namespace baton::net {

result<uint32_t> parse_frame_header(std::span<const std::byte, kFrameHeaderBytes> header,
                                    uint32_t max_bytes) {
  uint32_t length = 0;
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    length |= std::to_integer<uint32_t>(header[i]) << (8 * i);
  }
  if (length > max_bytes) {
    return error(Errc::kDataCorrupt, "frame of " + std::to_string(length) + " bytes; at most " +
                                         std::to_string(max_bytes) + " are taken");
  }
  return length;
}

result<proto::Frame> parse_frame_body(std::span<const std::byte> body) {
  proto::Frame frame;
  if (!frame.ParseFromArray(body.data(), static_cast<int>(body.size()))) {
    return error(Errc::kDataCorrupt,
                 "frame of " + std::to_string(body.size()) + " bytes is no Frame message");
  }
  if (frame.body_case() == proto::Frame::BODY_NOT_SET) {
    return error(Errc::kDataCorrupt, "frame carries no message that this version knows");
  }
  return frame;
}

status append_frame(const proto::Frame& frame, std::string& out) {
  const size_t length = frame.ByteSizeLong();
  if (length > kMaxFrameBytes) {
    return error(Errc::kInvalidArgument, "message of " + std::to_string(length) +
                                             " bytes; at most " + std::to_string(kMaxFrameBytes) +
                                             " are sent");
  }
  for (size_t i = 0; i < kFrameHeaderBytes; ++i) {
    out.push_back(static_cast<char>((length >> (8 * i)) & 0xff));
  }
  frame.AppendToString(&out);
  return {};
}

}  // namespace baton::net
