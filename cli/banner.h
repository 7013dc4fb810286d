#pragma once

#include <string>

#include "cli/ask.h"
#include "cli/up_config.h"

namespace baton::cli {

// What `baton up` tells people.

// "1 router + 2 prefill + 2 decode"
std::string shape_text(const UpConfig& config);
// "[TTFT 31 ms, TPOT 4.2 ms, ...]": one line; what was not measured is left out.
std::string timings_text(const AskTimings& timings);
// How to call the API at `url` (".../v1"), by curl and from Python, ready to be pasted. Where keys
// are asked for, they are taken from $API_KEY: a secret is not printed.
std::string usage_text(const UpConfig& config, const std::string& url);

}  // namespace baton::cli
