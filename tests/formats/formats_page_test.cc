// docs/formats.md names all that the code knows, and types of tensors as the code has them.
#include <gmock/gmock.h>

#include <fstream>
#include <regex>
#include <sstream>
#include <string>
#include <vector>

#include "common/formats/storage_type.h"

namespace baton::formats {
namespace {

std::string read(const std::string& path) {
  const std::ifstream file(std::string(BATON_SOURCE_DIR) + "/" + path);
  std::ostringstream out;
  out << file.rdbuf();
  EXPECT_FALSE(out.str().empty()) << path;
  return out.str();
}

std::string in_code(std::string_view name) { return "`" + std::string(name) + "`"; }

// The strings that stand in the initializer behind `table`.
std::vector<std::string> names_in(const std::string& source, const std::string& table) {
  const size_t begin = source.find(table);
  EXPECT_NE(begin, std::string::npos) << table;
  const std::string text = source.substr(begin, source.find("};", begin) - begin);
  static const std::regex kString("\"([^\"]+)\"");
  std::vector<std::string> out;
  for (std::sregex_iterator at(text.begin(), text.end(), kString), end; at != end; ++at) {
    out.push_back((*at)[1]);
  }
  EXPECT_FALSE(out.empty()) << table;
  return out;
}

class FormatsPage : public testing::Test {
 protected:
  void expect_all(const std::string& file, const std::string& table) const {
    for (const std::string& name : names_in(read(file), table)) {
      EXPECT_NE(page_.find(in_code(name)), std::string::npos) << name << " of " << file;
    }
  }
  const std::string page_ = read("docs/formats.md");
};

TEST_F(FormatsPage, HasEveryTypeOfTensor) {
  for (uint32_t number = 0; number < 64; ++number) {
    const std::string_view known = ggml_type_name(number);
    if (known.empty()) continue;
    const auto type = storage_type_from_ggml(number);
    const std::string row = type ? "| " + in_code(name(*type)) + " | " +
                                       std::to_string(block_elements(*type)) + " | " +
                                       std::to_string(block_bytes(*type)) + " |\n"
                                 : ", " + in_code(known);
    const bool first_refused = !type && page_.find(": " + in_code(known)) != std::string::npos;
    EXPECT_TRUE(first_refused || page_.find(row) != std::string::npos) << row;
  }
}

TEST_F(FormatsPage, HasEveryFamily) {
  expect_all("common/formats/model_config_gguf.cc", "kArchitectures = {");
  expect_all("common/formats/model_config_hf.cc", "kArchitectures = {");
  expect_all("common/text/tokenizer_gguf.cc", "kFamilies = {");
}

TEST_F(FormatsPage, HasAllOfTheTemplateLanguage) {
  const std::string jinja = "common/text/jinja/";
  expect_all(jinja + "text_filters.cc", "kFilters[] = {");
  expect_all(jinja + "sequence_filters.cc", "kFilters[] = {");
  expect_all(jinja + "builtins.cc", "kTests[] = {");
  expect_all(jinja + "builtins.cc", "kFunctions[] = {");
  expect_all(jinja + "methods.cc", "kStringMethods[] = {");
  expect_all(jinja + "methods.cc", "kDictMethods[] = {");
  expect_all(jinja + "methods.cc", "kListMethods[] = {");
}

}  // namespace
}  // namespace baton::formats
