#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "sim/cluster/measures.h"

// What `baton sim` and `baton plan` both read and write.
namespace baton::cli {

// A number above 0; `option` is named in the error.
result<double> parse_number(std::string_view text, const char* option);
// "ttft=SECONDS" and "tpot=SECONDS"; what is not said is as in Slo.
result<sim::Slo> parse_slo(const std::vector<std::string>& words);
// Nothing is done where `path` is empty. kIo.
status write_text(const std::string& path, const std::string& text);

}  // namespace baton::cli
