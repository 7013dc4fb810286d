// Whatever an API server sends, it is read or refused; what is read can be dialled.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "common/net/rpc.h"
#include "router/discovery/slice_tracker.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::router;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_service_place(text);
  const baton::TimePoint now{};
  for (const char* port : {"", "rpc", "9000"}) {
    SliceTracker tracker({"baton", "pool", port});
    if (!tracker.on_list(text, now)) {
      (void)tracker.on_list(R"({"kind":"EndpointSliceList","metadata":{"resourceVersion":"1"}})",
                            now);
    }
    (void)tracker.on_line(text, now);
    const auto endpoints = tracker.take_changed();
    if (!endpoints) std::abort();
    for (const auto& address : endpoints->addresses) {
      if (!baton::net::split_host_port(address)) std::abort();
    }
  }
  return 0;
}
