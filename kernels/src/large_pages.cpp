#include "large_pages.h"

#if defined(__linux__)

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <mutex>

namespace mulshift {
namespace {

constexpr uintptr_t kSize = uintptr_t{2} << 20;
constexpr size_t kWorth = kSize / 4 * 3;  // of weights; the rest becomes resident too if it was not
constexpr int kCollapse = 25;             // MADV_COLLAPSE, which older headers do not name

// How many bytes of each piece of memory of the size of a large page are weights.
struct Piece {
  uintptr_t number;
  size_t bytes;
};

class Pieces {
 public:
  void add(const void* data, size_t bytes, bool is_new) {
    const std::lock_guard<std::mutex> guard(mutex_);
    uintptr_t at = reinterpret_cast<uintptr_t>(data);
    const uintptr_t end = at + bytes;
    while (at < end) {
      const uintptr_t number = at / kSize, next = (number + 1) * kSize;
      const size_t part = (next < end ? next : end) - at;
      if (Piece* piece = find(number)) is_new ? fill(*piece, part) : empty(*piece, part);
      at += part;
    }
  }

 private:
  // A new one if there is none; null if there is no memory for it.
  Piece* find(uintptr_t number) {
    for (size_t i = count_; i-- > 0;) {  // neighbours were added last
      if (pieces_[i].number == number) return &pieces_[i];
    }
    if (count_ == room_) {
      const size_t room = 2 * room_ + 16;
      void* larger = std::realloc(pieces_, room * sizeof(Piece));
      if (!larger) return nullptr;
      pieces_ = static_cast<Piece*>(larger);
      room_ = room;
    }
    pieces_[count_] = {number, 0};
    return &pieces_[count_++];
  }

  static void fill(Piece& piece, size_t bytes) {
    const bool was_worth = piece.bytes >= kWorth;
    piece.bytes += bytes;
    if (was_worth || piece.bytes < kWorth) return;
    // Refused where the system has no such pages, or where other memory begins inside: slower, and that is all.
    static_cast<void>(madvise(reinterpret_cast<void*>(piece.number * kSize), kSize, kCollapse));
  }

  void empty(Piece& piece, size_t bytes) {
    piece.bytes -= bytes < piece.bytes ? bytes : piece.bytes;
    if (!piece.bytes) piece = pieces_[--count_];
  }

  std::mutex mutex_;
  Piece* pieces_ = nullptr;
  size_t count_ = 0, room_ = 0;
};

Pieces& pieces() {
  static Pieces all;  // nothing to destroy: sessions may outlive what ends with the process
  return all;
}

}  // namespace

void LargePages::hold(const void* data, size_t bytes) {
  if (data_ || !bytes) return;
  data_ = data;
  bytes_ = bytes;
  pieces().add(data, bytes, true);
}

LargePages::~LargePages() {
  if (data_) pieces().add(data_, bytes_, false);
}

}  // namespace mulshift

#else

namespace mulshift {

void LargePages::hold(const void*, size_t) {}
LargePages::~LargePages() = default;

}  // namespace mulshift

#endif
