#include "tests/model/goldens.h"

#include <algorithm>
#include <boost/json.hpp>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace baton::model {
namespace {

namespace json = boost::json;

template <class T>
std::vector<T> numbers(const json::value& array) {
  std::vector<T> out;
  for (const json::value& v : array.as_array()) out.push_back(v.to_number<T>());
  return out;
}

template <class T>
std::vector<std::vector<T>> rows(const json::value& array) {
  std::vector<std::vector<T>> out;
  for (const json::value& v : array.as_array()) out.push_back(numbers<T>(v));
  return out;
}

}  // namespace

std::vector<TokenId> Golden::tokens() const {
  std::vector<TokenId> all = prompt;
  all.insert(all.end(), output.begin(), output.end());
  return all;
}

std::filesystem::path data_dir() {
  return std::filesystem::path(BATON_SOURCE_DIR) / "tests/model/data";
}

std::vector<Golden> read_goldens(const std::filesystem::path& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  const json::value root = json::parse(text.str());
  std::vector<Golden> goldens;
  for (const json::value& c : root.at("cases").as_array()) {
    Golden g{.name = c.at("name").as_string().c_str(),
             .prompt = numbers<TokenId>(c.at("prompt")),
             .output = numbers<TokenId>(c.at("output")),
             .top_ids = rows<TokenId>(c.at("top_ids")),
             .top_logits = rows<float>(c.at("top_logits"))};
    if (g.top_ids.size() != g.tokens().size() || g.top_logits.size() != g.top_ids.size()) {
      throw std::runtime_error(path.string() + ": case '" + g.name + "' is incomplete");
    }
    goldens.push_back(std::move(g));
  }
  return goldens;
}

TokenId argmax(std::span<const float> logits) {
  return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

}  // namespace baton::model
