// Large pages under weights, where the system has them (Linux 6.1 and newer).
//
// Weights come from memory in order, every run. In pages of 4 KB the processor looks up an address every 64 cache lines, and
// none of its prefetchers foresees the next page; in pages of 2 MB both hardly happen. The pages of a session's weights are
// exchanged in place once weights fill most of 2 MB: addresses and contents stay.
#ifndef MULSHIFT_SRC_LARGE_PAGES_H
#define MULSHIFT_SRC_LARGE_PAGES_H

#include <cstddef>

namespace mulshift {

class LargePages {
 public:
  LargePages() = default;
  LargePages(const LargePages&) = delete;
  LargePages& operator=(const LargePages&) = delete;
  ~LargePages();

  // Once: `bytes` of weights that stay at `data` as long as this lives.
  void hold(const void* data, size_t bytes);

 private:
  const void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace mulshift

#endif
