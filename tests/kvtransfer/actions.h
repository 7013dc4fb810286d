#pragma once

#include <variant>
#include <vector>

#include "kvtransfer/messages.h"

// How the tests of the state machines look at what they were told to do.
namespace baton::kvtransfer {

// All actions of kind T, in order.
template <class T, class Actions>
std::vector<T> all(const Actions& actions) {
  std::vector<T> out;
  for (const auto& action : actions) {
    if (const T* t = std::get_if<T>(&action)) out.push_back(*t);
  }
  return out;
}

// All messages of kind T sent to `to`, in order.
template <class T, class Actions>
std::vector<T> sent(const Actions& actions, WorkerId to) {
  std::vector<T> out;
  for (const SendMessage& send : all<SendMessage>(actions)) {
    const T* t = std::get_if<T>(&send.message);
    if (send.to == to && t != nullptr) out.push_back(*t);
  }
  return out;
}

inline TimePoint at(double s) {
  return TimePoint{} +
         std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s + 1000));
}

}  // namespace baton::kvtransfer
