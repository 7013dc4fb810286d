#pragma once

#include <boost/json/parse.hpp>
#include <boost/json/value.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

// The files of tests/text/data, which scripts/make_text_goldens.py makes.
namespace baton::text {

inline std::filesystem::path data_path(const std::string& name) {
  return std::filesystem::path(BATON_SOURCE_DIR) / "tests/text/data" / name;
}

inline std::string read_data(const std::string& name) {
  std::ifstream in(data_path(name), std::ios::binary);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::vector<boost::json::value> read_json_lines(const std::string& name) {
  std::ifstream in(data_path(name));
  EXPECT_TRUE(in) << name;
  std::vector<boost::json::value> out;
  for (std::string line; std::getline(in, line);) out.push_back(boost::json::parse(line));
  return out;
}

inline std::string text_of(const boost::json::value& value) {
  return std::string(value.as_string());
}

}  // namespace baton::text
