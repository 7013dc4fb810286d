#include "common/proto/library_log.h"

#if __has_include(<google/protobuf/stubs/logging.h>)

#include <google/protobuf/stubs/logging.h>

#include <cstdio>

namespace baton::proto {

void silence_library() {
  google::protobuf::SetLogHandler(
      [](google::protobuf::LogLevel level, const char* file, int line, const std::string& message) {
        if (level != google::protobuf::LOGLEVEL_FATAL) return;
        std::fprintf(stderr, "protobuf: %s:%d: %s\n", file, line, message.c_str());
      });
}

}  // namespace baton::proto

#else  // from version 22 on it logs by Abseil

#include <absl/log/globals.h>

namespace baton::proto {

void silence_library() { absl::SetStderrThreshold(absl::LogSeverityAtLeast::kFatal); }

}  // namespace baton::proto

#endif
