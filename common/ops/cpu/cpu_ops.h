#pragma once

#include "common/ops/ops.h"

namespace baton::ops {

// The CPU's table: fast, and the oracle for the others. Streams must be CpuStreams.
Ops cpu_ops();

}  // namespace baton::ops
