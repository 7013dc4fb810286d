// Whatever a file of requests or of recorded steps holds, it is read or refused.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "sim/cluster/step_times.h"
#include "sim/cluster/traffic.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::sim;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)RecordedSteps::parse(text, "fuzz");
  const auto trace = parse_trace(text, "fuzz");
  if (!trace) return 0;
  const auto traffic = Traffic::make(*trace, {.rate = 1, .count = 3});
  if (!traffic || traffic->input_tokens(2) > 4096) return 0;
  std::vector<baton::TokenId> prompt;
  traffic->prompt(2, 2, 100, prompt);
  return 0;
}
