#pragma once

namespace baton::proto {

// Protobuf prints to standard error what it cannot parse, and names fields of it. Who parses what
// strangers send says that by itself, or not at all: after this, the library is silent, but for
// what ends the process. For all of the process; called once, by main(), before any thread starts.
void silence_library();

}  // namespace baton::proto
