#include "common/base/log.h"

#include <spdlog/sinks/stdout_color_sinks.h>

#include <memory>
#include <string>

namespace baton {

status check_log_level(std::string_view level) {
  // spdlog would take any other word for "off".
  for (const std::string_view known : {"debug", "info", "warn", "error"}) {
    if (level == known) return {};
  }
  return error(Errc::kInvalidArgument, "--log-level '" + std::string(level.substr(0, 256)) +
                                           "' is none of debug, info, warn, error");
}

void init_log(std::string_view process, std::string_view level) {
  auto sink = std::make_shared<spdlog::sinks::stderr_color_sink_mt>();
  auto logger = std::make_shared<spdlog::logger>(std::string(process), sink);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ [%n] %v");
  logger->set_level(spdlog::level::from_str(std::string(level)));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace baton
