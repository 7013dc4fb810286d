#pragma once

#include <concepts>
#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace baton::sim {

// Something that is to be done: a callable without arguments. It moves and is not copied, and what
// is small lives in it, so that most events allocate nothing.
class Event {
 public:
  Event() = default;
  template <class F>
  requires(!std::same_as<std::remove_cvref_t<F>, Event>)
      Event(F&& f) {  // as of std::function, a conversion
    using Callable = std::remove_cvref_t<F>;
    if constexpr (kLivesHere<Callable>) {
      ::new (static_cast<void*>(room_)) Callable(std::forward<F>(f));
    } else {
      ::new (static_cast<void*>(room_)) Callable*(new Callable(std::forward<F>(f)));
    }
    kind_ = &kKind<Callable>;
  }
  Event(Event&& other) noexcept { take(other); }
  Event& operator=(Event&& other) noexcept {
    if (this == &other) return *this;
    clear();
    take(other);
    return *this;
  }
  ~Event() { clear(); }

  void operator()() { kind_->call(room_); }  // not of an empty one

 private:
  static constexpr size_t kRoom = 56;  // bytes: a few ids and pointers
  struct Kind {
    void (*call)(std::byte* room);
    void (*move)(std::byte* from, std::byte* to);  // leaves nothing behind
    void (*destroy)(std::byte* room);
  };

  template <class Callable>
  static constexpr bool kLivesHere =
      sizeof(Callable) <= kRoom &&
      alignof(Callable) <= alignof(void*) && std::is_nothrow_move_constructible_v<Callable>;
  template <class Callable>
  static Callable& in(std::byte* room) {
    if constexpr (kLivesHere<Callable>) {
      return *std::launder(reinterpret_cast<Callable*>(room));
    } else {
      return **std::launder(reinterpret_cast<Callable**>(room));
    }
  }
  template <class Callable>
  static void call(std::byte* room) {
    in<Callable>(room)();
  }
  template <class Callable>
  static void move(std::byte* from, std::byte* to) {
    if constexpr (kLivesHere<Callable>) {
      ::new (static_cast<void*>(to)) Callable(std::move(in<Callable>(from)));
      in<Callable>(from).~Callable();
    } else {
      ::new (static_cast<void*>(to)) Callable*(&in<Callable>(from));
    }
  }
  template <class Callable>
  static void destroy(std::byte* room) {
    if constexpr (kLivesHere<Callable>) {
      in<Callable>(room).~Callable();
    } else {
      delete &in<Callable>(room);
    }
  }
  template <class Callable>
  static constexpr Kind kKind{&call<Callable>, &move<Callable>, &destroy<Callable>};

  void take(Event& other) {
    kind_ = std::exchange(other.kind_, nullptr);
    if (kind_ != nullptr) kind_->move(other.room_, room_);
  }
  void clear() {
    if (kind_ != nullptr) std::exchange(kind_, nullptr)->destroy(room_);
  }

  const Kind* kind_ = nullptr;
  alignas(void*) std::byte room_[kRoom];
};

}  // namespace baton::sim
