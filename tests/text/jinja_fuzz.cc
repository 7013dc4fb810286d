// Any bytes as a template: parsing and rendering end, within the limits, in a text or an error.
#include <cstdint>
#include <cstdlib>

#include "common/text/chat_template.h"
#include "common/text/utf8.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace baton::text;
  jinja::Limits limits;
  limits.max_steps = 20'000;
  limits.max_output_bytes = size_t{1} << 16;
  const std::string_view source(reinterpret_cast<const char*>(data), size);
  const auto parsed = ChatTemplate::parse(source, "fuzz", limits);
  if (!parsed) return 0;
  const ChatMessage messages[] = {
      {"system", " Be brief.\n"}, {"user", "日本 <x> \"'\\"}, {"assistant", "<think>a</think>b"}};
  ChatOptions options;
  options.bos_token = "<s>";
  options.variables = {{"n", 3}, {"list", {1, "two", nullptr, 4.5}}};
  const auto out = parsed->render(messages, options);
  if (out && (out->size() > limits.max_output_bytes || find_invalid_utf8(*out))) abort();
  return 0;
}
