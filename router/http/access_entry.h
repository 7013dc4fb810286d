#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "router/http/exchange.h"

// A request that is over, as the logs tell it. Pure.
namespace baton::router {

struct AccessEntry {
  const HttpHead& head;
  HttpStatus status;
  std::string_view reason;   // an error's code; empty: none
  std::string_view outcome;  // of the writing: "ok", "disconnected" or "too_slow"
  uint64_t bytes = 0;        // written
  Duration took;             // from receipt
  const RequestFacts& facts;
  std::string trace_id = {};  // empty: it is in no trace
};

// Why it ended as it did: "ok", else the model's word before that of HTTP.
std::string_view reason_of(const AccessEntry& entry);

// "model=... finish=..."; empty where nothing is known.
std::string facts_text(const RequestFacts& facts);
// For the process's log: "access id=... peer=...", and the facts.
std::string access_text(const AccessEntry& entry);
// For --access-log: one JSON object (docs/access_log.md), without a line end. What is not known of
// the request is left out.
std::string access_json(const AccessEntry& entry, std::chrono::system_clock::time_point now);

}  // namespace baton::router
