#pragma once

#include <cstdint>

#include "common/base/result.h"
#include "kvtransfer/messages.h"

namespace baton::kvtransfer {

// What two workers that may hand over to each other agreed on.
struct Pairing {
  uint32_t protocol = 0;        // the newest both speak
  uint32_t granule_tokens = 0;  // Credit::first_token is a multiple of this
};

// Whether KV of `theirs` may be used by `ours` and the reverse: equal model, numerics and vectors;
// block sizes may differ if one divides the other, but not where KV is read in a GPU's memory: then
// both have theirs in one, on one host. Pure. kUnsupported, with both sides' values in
// the sentence, if not.
result<Pairing> pair(const Hello& ours, const Hello& theirs);

}  // namespace baton::kvtransfer
