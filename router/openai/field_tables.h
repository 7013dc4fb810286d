#pragma once

#include <string>
#include <vector>

#include "router/openai/fields.h"

// What becomes of a request's field:
//  - one that is served is read by name (sampling.cc, chat_request.cc, completion_request.cc);
//  - one that is known and not served, or not on this path, is refused by name, unless its value
//    asks for nothing;
//  - one that is known and has no effect here (user, metadata, store, ...) is accepted;
//  - one that nobody knows is ignored, as OpenAI-compatible servers do, and shown in the access
//  log.
namespace baton::router {

enum class Endpoint { kCompletions, kChat, kTokenize };

// The first field of the request that is known and not served.
api_status refuse_unsupported(const Fields& fields, Endpoint endpoint);

// Names that no table knows: printable, at most 8 of them.
std::vector<std::string> unknown_fields(const Fields& fields, Endpoint endpoint);

}  // namespace baton::router
