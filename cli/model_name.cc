#include "cli/model_name.h"

#include <filesystem>
#include <regex>

namespace baton::cli {

std::string model_name_of(const std::string& path) {
  std::filesystem::path p(path);
  if (!p.has_filename()) p = p.parent_path();  // "dir/"
  static const std::regex kSuffix(R"(([.-](I?Q\d\w*|F16|F32|BF16|fp16|bf16))?\.gguf$)",
                                  std::regex::icase);
  return std::regex_replace(p.filename().string(), kSuffix, "");
}

}  // namespace baton::cli
