#pragma once

#include <memory>

#include "common/collective/collective.h"

namespace baton::fakes {

// Ranks on fake GPUs: what they gather is gathered when their streams come to it, not before; sums
// are as beside a real one. As connect_gloo otherwise.
result<std::unique_ptr<collective::Collective>> connect_fake_gpus(
    uint32_t rank, uint32_t size, const collective::Exchange& exchange, milliseconds timeout);

}  // namespace baton::fakes
