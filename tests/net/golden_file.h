#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace baton::testing {

// A message as an older or this protocol writes it: scripts/make_golden_frames.py makes the bytes.
struct Golden {
  std::string name, text, bytes;
};

inline std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return bytes;
}

// Of the file at a path below the project's root.
inline std::vector<Golden> read_goldens(const std::string& path) {
  std::ifstream file(std::string(BATON_SOURCE_DIR) + "/" + path);
  EXPECT_TRUE(file) << path;
  std::vector<Golden> goldens;
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with('[')) {
      goldens.push_back({line.substr(1, line.find(']') - 1), {}, {}});
    } else if (!goldens.empty() && line.starts_with("hex ")) {
      goldens.back().bytes += from_hex(line.substr(4));
    } else if (!goldens.empty()) {
      goldens.back().text += line + "\n";
    }
  }
  return goldens;
}

template <class Message>
Message parse_text(const Golden& golden) {
  Message message;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(golden.text, &message)) << golden.name;
  return message;
}

// Full names of the fields that are set in it, and below.
inline void note_fields(const google::protobuf::Message& message, std::set<std::string>& set) {
  const auto& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const auto* field : fields) {
    set.insert(field->full_name());
    if (field->cpp_type() != google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) continue;
    if (!field->is_repeated()) {
      note_fields(reflection.GetMessage(message, field), set);
      continue;
    }
    for (int i = 0; i < reflection.FieldSize(message, field); ++i) {
      note_fields(reflection.GetRepeatedMessage(message, field, i), set);
    }
  }
}

// Full names of all fields that a message of this type may have, and below.
inline void all_fields(const google::protobuf::Descriptor& type, std::set<std::string>& all) {
  for (int i = 0; i < type.field_count(); ++i) {
    const auto* field = type.field(i);
    const bool fresh = all.insert(field->full_name()).second;
    if (fresh && field->message_type() != nullptr) all_fields(*field->message_type(), all);
  }
}

}  // namespace baton::testing
