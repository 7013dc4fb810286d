#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "common/base/result.h"

// Memory of System V: it has a number and no name, only this user's processes can attach it, and it
// ends with the last process that has it.
namespace baton::kvtransfer {

// kResourceExhausted.
result<std::byte*> make_segment(size_t bytes);

// The number of the segment that starts at `address` here, whoever made it. kUnavailable: there is
// none.
result<int> segment_at(const void* address);

// Of the segment that starts there, if one does: that only this user's processes can attach it, as
// of one that was made here. UCX lets the group, too.
void keep_to_owner(const void* address);

struct Detach {
  void operator()(std::byte* p) const;
};
using Attached = std::unique_ptr<std::byte, Detach>;

// Attaches another process's segment. kUnavailable; kInvalidArgument where it is smaller than
// `bytes`.
result<Attached> attach_segment(int number, size_t bytes);

}  // namespace baton::kvtransfer
