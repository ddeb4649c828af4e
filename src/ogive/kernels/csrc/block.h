// Blocks: what a thread keeps packed of a head, and a tile of scores.
#pragma once

#include <algorithm>

#include "buffer.h"
#include "problem.h"
#include "seen.h"
#include "tile.h"

namespace ogive::OGIVE_ISA {

constexpr int64_t kBlock = 48;   // rows of a tile
constexpr int64_t kSpan = 128;   // columns of a tile

// What one thread keeps of the head it is working on.
template <class T>
struct Packed {
  int64_t head = -1;
  Buffer<T> panels, value_panels, rows, value_rows;
};

// A tile of scores: rows against packed columns; the scale went into the packed queries.
template <class T>
void score_tile(const Problem& p, int64_t rows, const T* left, const T* panels, int64_t columns,
                T* tile) {
  against_panels<T>(rows, p.width, left, p.width, panels, columns, tile, kSpan);
}

// The tile columns that any row of a block needs: a range whose low end starts a panel.
template <class T, class Of>
Span columns_of(int64_t first, int64_t rows, Of of) {
  Span all{INT64_MAX, 0};
  for (int64_t r = 0; r < rows; ++r) {
    const Span one = of(first + r);
    if (one.low < one.high) all = {std::min(all.low, one.low), std::max(all.high, one.high)};
  }
  if (all.low >= all.high) return {0, 0};
  return {all.low / kPanel<T> * kPanel<T>, all.high};
}

// How many blocks a thread takes at a time: a head's where there are enough, so that few threads
// pack the same head.
inline int64_t share_of(const Problem& p, int64_t units, int64_t blocks) {
  return std::clamp<int64_t>(units / (4 * p.threads), 1, std::max<int64_t>(1, blocks));
}

}  // namespace ogive::OGIVE_ISA
