#pragma once

// Logging: spdlog's macros behind our names, one line an event, never a prompt, an output or a
// secret. A logger is handed to nobody: the process has one sink, set up by main().
#include <spdlog/spdlog.h>

#include <string_view>

#include "common/base/result.h"

namespace baton {

// An error that names --log-level unless `level` is one of the four words.
status check_log_level(std::string_view level);

// Sets level ("debug", "info", "warn" or "error", as checked above) and the process's name shown on
// each line. Called once, by main(), before any thread starts.
void init_log(std::string_view process, std::string_view level);

}  // namespace baton

#define LOG_DEBUG(...) ::spdlog::debug(__VA_ARGS__)
#define LOG_INFO(...) ::spdlog::info(__VA_ARGS__)
#define LOG_WARN(...) ::spdlog::warn(__VA_ARGS__)
#define LOG_ERROR(...) ::spdlog::error(__VA_ARGS__)
