#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "kvtransfer/messages.h"

// Between messages.h and the wire (common/proto/handoff.proto). What decode returns is within every
// bound of messages.h and consistent in itself; whether it fits the receiver's state is the state
// machines' business. Errors are kDataCorrupt (kUnsupported for a layout that is understood but not
// offered) and name the message and the field.
namespace baton::kvtransfer {

std::string encode(const Hello& hello);
result<Hello> decode_hello(std::string_view bytes);

// At most kMaxMessageBytes, given the counts of messages.h.
std::string encode(const Message& message);
result<Message> decode_message(std::span<const std::byte> bytes);

}  // namespace baton::kvtransfer
