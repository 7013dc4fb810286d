#pragma once

#include <string_view>

// The parts of the live page, made of the files beside this one when it is built (embed.cmake).
namespace baton::router::page_text {

// HTML with {{style}} and {{script}} where those belong.
extern const std::string_view kDocument;
extern const std::string_view kStyle;
extern const std::string_view kScript;

}  // namespace baton::router::page_text
