#include "cli/banner.h"

#include <fmt/format.h>

namespace baton::cli {

std::string shape_text(const UpConfig& config) {
  std::string text = "1 router";
  const auto part = [&](uint32_t n, const char* role) {
    if (n > 0) text += fmt::format(" + {} {}", n, role);
  };
  part(config.prefill, "prefill");
  part(config.decode, "decode");
  part(config.mixed, "mixed");
  part(config.auto_workers, "auto");
  return text;
}

std::string timings_text(const AskTimings& t) {
  std::string text = "[";
  if (t.ttft) text += fmt::format("TTFT {:.0f} ms, ", to_seconds(*t.ttft) * 1e3);
  if (t.tpot) text += fmt::format("TPOT {:.1f} ms, ", to_seconds(*t.tpot) * 1e3);
  text += fmt::format("{} prompt + {} output tokens", t.prompt_tokens, t.output_tokens);
  if (!t.kv_transport.empty()) {
    text += fmt::format("; {:.2f} MB of KV read by {} from {} over {}",
                        static_cast<double>(t.kv_bytes) / 1e6, t.decode_worker, t.prefill_worker,
                        t.kv_transport);
  }
  return text + "]";
}

std::string usage_text(const UpConfig& config, const std::string& url) {
  const std::string& file =
      config.access.tenants_file.empty() ? config.access.api_key_file : config.access.tenants_file;
  const bool keys = !file.empty();
  const auto when = [](bool condition, std::string text) { return condition ? text : ""; };
  return "\nTry it" + when(keys, ", with API_KEY exported: a key of " + file) +
         ":\n\n"
         "  curl -N " +
         url + "/chat/completions -H 'Content-Type: application/json' \\\n" +
         when(keys, "    -H \"Authorization: Bearer $API_KEY\" \\\n") + "    -d '{\"model\": \"" +
         config.model_name +
         "\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}], \"stream\": true}'\n"
         "\n" +
         when(keys, "  import os\n") +
         "  from openai import OpenAI\n"
         "  client = OpenAI(base_url=\"" +
         url + "\", api_key=" + (keys ? "os.environ[\"API_KEY\"]" : "\"none\"") +
         ")\n"
         "  model = client.models.list().data[0].id\n"
         "  reply = client.chat.completions.create(\n"
         "      model=model, messages=[{\"role\": \"user\", \"content\": \"Hello!\"}])\n"
         "  print(reply.choices[0].message.content)\n\n"
         "Ctrl-C stops it.";
}

}  // namespace baton::cli
