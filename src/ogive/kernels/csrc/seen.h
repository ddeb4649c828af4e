// Who sees whom: the ends of a row by position, what a tile shows, and one row of a tile with what
// hides in it.
#pragma once

#include <algorithm>
#include <cstring>

#include "pack.h"
#include "problem.h"

namespace ogive::OGIVE_ISA {

constexpr int64_t kBlock = 48;  // rows of a tile
constexpr int64_t kSpan = 128;  // columns of a tile
struct TileSize {
  int64_t rows, columns;
};
constexpr TileSize kTile{kBlock, kSpan};

// Keys that query i sees by position alone.
inline Span keys_of(const Problem& p, int64_t b, int64_t i) {
  const int64_t at = i + (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);
  int64_t low = p.left < 0 ? 0 : std::max<int64_t>(0, at - p.left);
  int64_t high = p.right < 0 ? p.keys : std::min(p.keys, at + p.right + 1);
  low = std::min(low, p.keys);
  return {low, std::max(low, high)};
}

// Queries that see key j by position alone.
inline Span queries_of(const Problem& p, int64_t b, int64_t j) {
  const int64_t at = j - (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);
  int64_t low = p.right < 0 ? 0 : std::max<int64_t>(0, at - p.right);
  int64_t high = p.left < 0 ? p.queries : std::min(p.queries, at + p.left + 1);
  low = std::min(low, p.queries);
  return {low, std::max(low, high)};
}

// 16 rows of 16 bytes, `apart` from one another, become columns: four times, row i and row i + 8 are
// shuffled into each other.
inline void turn_bytes(const uint8_t* from, int64_t apart, uint8_t* to, int64_t to_apart) {
  typedef uint8_t Bytes __attribute__((vector_size(16), aligned(1), may_alias));
  Bytes rows[16], turned[16];
  for (int i = 0; i < 16; ++i) rows[i] = *reinterpret_cast<const Bytes*>(from + i * apart);
  for (int time = 0; time < 4; ++time) {
#pragma GCC unroll 8
    for (int i = 0; i < 8; ++i) {
      turned[2 * i] = __builtin_shufflevector(rows[i], rows[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4,
                                              20, 5, 21, 6, 22, 7, 23);
      turned[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + 8], 8, 24, 9, 25, 10, 26, 11, 27,
                                                  12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::copy(turned, turned + 16, rows);
  }
  for (int i = 0; i < 16; ++i) *reinterpret_cast<Bytes*>(to + i * to_apart) = rows[i];
}

// One row of a tile: numbers for n columns, of which [low, high) may be seen.
template <class T>
struct Row {
  T* scores;
  int64_t n, low, high;     // low and high relative to the first column
  const uint8_t* mask;      // or null
  const T* bias;

  bool whole() const { return low <= 0 && high >= n && !mask; }
  bool empty() const { return low >= high; }
  void squash(T cap) const {  // cap · tanh(s / cap)
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(scores + k, cap * hyperbolic_tangent<T>(load<T>(scores + k) * (1 / cap)));
  }
  void add_bias() const {
    if (!bias) return;
    int64_t k = std::max<int64_t>(low, 0);
    const int64_t end = std::min(high, n);
    for (; k + Lanes<T>::count <= end; k += Lanes<T>::count)
      store<T>(scores + k, load<T>(scores + k) + load<T>(bias + k));
    for (; k < end; ++k) scores[k] += bias[k];
  }
  void hide(T* numbers, T with) const {
    const int64_t from = std::clamp<int64_t>(low, 0, n), to = std::clamp<int64_t>(high, from, n);
    std::fill(numbers, numbers + from, with);
    std::fill(numbers + to, numbers + n, with);
    if (mask) hide_masked(numbers, with, from, to);
  }

 private:
  void hide_masked(T* numbers, T with, int64_t k, int64_t to) const {
    constexpr int W = Lanes<T>::count;
    const auto hide_some = [&](const uint8_t* shown, T* some) {
      store<T>(some, from_bytes<T>(shown) != 0 ? load<T>(some) : splat<T>(with));
    };
    for (; k + W <= to; k += W) hide_some(mask + k, numbers + k);
    if (k >= to) return;
    uint8_t shown[W];  // what is left, in the last vector that holds it
    const int64_t start = std::min(k, n - W);
    for (int64_t l = 0; l < W; ++l) shown[l] = start + l < k || mask[std::min(start + l, to - 1)];
    hide_some(shown, numbers + start);
  }
};

// Where a tile lies: rows from `first` against columns from `start`. Rows are queries and columns
// keys, or the other way round.
struct Place {
  int64_t b, h, first, rows, start, columns;
  bool rows_are_queries;
};

// What a tile shows: for each row the columns from the first visible to the last, and for each
// group of kRows rows whole vectors that hold those of all its rows. Mask and bias are copied to
// run along the rows where they do not.
template <class T, TileSize Tile = kTile>
class Sight {
 public:
  Span rows[Tile.rows], groups[Tile.rows / 6 + 1];
  bool gaps[Tile.rows];  // something is hidden between the ends of the row

  void reserve(const Problem& p) {
    if (p.mask) bytes_.need(Tile.rows * Tile.columns);
    if (p.bias) biases_.need(Tile.rows * Tile.columns);
  }

  // Whether anything of the tile is visible.
  bool look(const Problem& p, const Place& at, Watch<T>& watch) {
    const int64_t limit = std::min(at.columns, (at.rows_are_queries ? p.keys : p.queries) - at.start);
    const bool placed = p.left >= 0 || p.right >= 0;
    for (int64_t r = 0; r < at.rows; ++r) {
      rows[r] = {0, limit};
      gaps[r] = false;
      if (!placed) continue;
      const Span seen = at.rows_are_queries ? keys_of(p, at.b, at.first + r)
                                            : queries_of(p, at.b, at.first + r);
      rows[r] = {std::clamp<int64_t>(seen.low - at.start, 0, limit),
                 std::clamp<int64_t>(seen.high - at.start, 0, limit)};
    }
    if (p.mask) look_at_mask(p, at, limit);
    const bool any = group(at.rows, Lanes<T>::count);
    if (any && p.bias) take_bias(p, at, limit, watch);
    return any;
  }

  // Leaves groups only the columns that a row of theirs sees: all that has weight, vectors or not.
  void narrow(int64_t count) { group(count, 1); }

  // For each group of kRows columns the rows, in whole groups, that it has something to do with.
  void across(int64_t count, int64_t columns, Span* found) const {
    for (int64_t c = 0; c < columns; c += kRows) {
      Span all{INT64_MAX, 0};
      for (int64_t r = 0; r < count; r += kRows)
        if (groups[r / kRows].low < c + kRows && groups[r / kRows].high > c)
          all = {std::min(all.low, r), std::min(count, r + kRows)};
      found[c / kRows] = all.empty() ? Span{0, 0} : all;
    }
  }

  // Row r of the tile, from the first column of its group on.
  Row<T> row(int64_t r, T* tile) const {
    const Span& group = groups[r / kRows];
    return {tile + r * Tile.columns + group.low,
            group.high - group.low,
            rows[r].low - group.low,
            rows[r].high - group.low,
            gaps[r] ? mask_ + r * mask_across_ + group.low : nullptr,
            bias_ ? bias_ + r * bias_across_ + group.low : nullptr};
  }

 private:
  Buffer<uint8_t> bytes_;
  Buffer<T> biases_;
  const uint8_t* mask_ = nullptr;
  const T* bias_ = nullptr;
  int64_t mask_across_ = 0, bias_across_ = 0;

  static int64_t first_query(const Place& at) { return at.rows_are_queries ? at.first : at.start; }
  static int64_t first_key(const Place& at) { return at.rows_are_queries ? at.start : at.first; }

  void look_at_mask(const Problem& p, const Place& at, int64_t limit) {
    const int64_t along = p.mask.stride[at.rows_are_queries ? 3 : 2];
    mask_across_ = p.mask.stride[at.rows_are_queries ? 2 : 3];
    mask_ = p.mask.at<const uint8_t>(at.b, at.h, first_query(at), first_key(at));
    if (along != 1) {
      const int64_t different = mask_across_ ? at.rows : 1;
      turn_mask(mask_, mask_across_, along, different, limit, bytes_.get());
      mask_ = bytes_.get();
      mask_across_ = mask_across_ ? Tile.columns : 0;
    }
    for (int64_t r = 0; r < at.rows; ++r) trim(r);
  }

  // Copies a mask whose rows lie `across` apart and whose columns `along`, 16 × 16 at a time where rows
  // lie side by side.
  static void turn_mask(const uint8_t* from, int64_t across, int64_t along, int64_t rows,
                        int64_t columns, uint8_t* to) {
    const int64_t square_rows = across == 1 ? rows / 16 * 16 : 0, square_columns = columns / 16 * 16;
    for (int64_t r = 0; r < square_rows; r += 16)
      for (int64_t k = 0; k < square_columns; k += 16)
        turn_bytes(from + r + k * along, along, to + r * Tile.columns + k, Tile.columns);
    for (int64_t k = 0; k < columns; ++k)
      for (int64_t r = k < square_columns ? square_rows : 0; r < rows; ++r)
        to[r * Tile.columns + k] = from[r * across + k * along];
  }

  void trim(int64_t r) {
    const uint8_t* mask = mask_ + r * mask_across_;
    Span& row = rows[r];
    uint64_t eight = 0;
    while (row.low + 8 <= row.high && (std::memcpy(&eight, mask + row.low, 8), !eight)) row.low += 8;
    while (row.low < row.high && !mask[row.low]) ++row.low;
    while (row.low < row.high && !mask[row.high - 1]) --row.high;
    gaps[r] = !row.empty() && std::memchr(mask + row.low, 0, row.high - row.low);
  }

  bool group(int64_t count, int64_t to) {
    bool any = false;
    for (int64_t r = 0; r < count; r += kRows) {
      Span all{INT64_MAX, 0};
      for (int64_t k = r; k < std::min(count, r + kRows); ++k)
        if (!rows[k].empty()) all = {std::min(all.low, rows[k].low), std::max(all.high, rows[k].high)};
      any = any || !all.empty();
      groups[r / kRows] = all.empty() ? Span{0, 0}
                                      : Span{all.low / to * to, round_up(all.high, to)};
    }
    return any;
  }

  // Copies a bias whose rows lie one apart and whose columns lie `along` apart, block by block.
  template <Kind K>
  static void turn_bias(const typename Stored<T, K>::Type* from, int64_t along, int64_t rows,
                        int64_t columns, T* to) {
    constexpr int W = Lanes<T>::count;
    for (int64_t k = 0; k < columns; k += W)
      for (int64_t r = 0; r < rows; r += W) {
        Vec<T> block[W];
        for (int64_t c = 0; c < W; ++c)
          block[c] = k + c < columns ? load_some<T, K>(from + (k + c) * along + r, 1, rows - r)
                                     : Vec<T>{};
        transpose<T>(block);
        for (int64_t c = 0; c < std::min<int64_t>(W, rows - r); ++c)
          store<T>(to + (r + c) * Tile.columns + k, block[c]);
      }
  }

  void take_bias(const Problem& p, const Place& at, int64_t limit, Watch<T>& watch) {
    const int64_t along = p.bias.stride[at.rows_are_queries ? 3 : 2];
    bias_across_ = p.bias.stride[at.rows_are_queries ? 2 : 3];
    const int64_t different = bias_across_ ? at.rows : 1;
    with_kind<T>(p.bias, [&](auto kind) {
      constexpr Kind K = decltype(kind)::value;
      using Type = typename Stored<T, K>::Type;
      const Type* from = p.bias.template at<Type>(at.b, at.h, first_query(at), first_key(at));
      if constexpr (K == kOwn) bias_ = from;
      if (K == kOwn && along == 1) return;
      T* to = biases_.get();
      if (bias_across_ == 1 && different == at.rows)
        turn_bias<K>(from, along, different, limit, to);
      else
        for (int64_t k = 0; k < limit; ++k)
          for (int64_t r = 0; r < different; ++r)
            to[r * Tile.columns + k] = Stored<T, K>::one(from[r * bias_across_ + k * along]);
      bias_ = to;
      bias_across_ = bias_across_ ? Tile.columns : 0;
    });
    for (int64_t r = 0; r < different; ++r) watch.see_finite(bias_ + r * bias_across_, limit);
  }
};

// The tile columns that any row of a block needs: a range whose low end starts a panel.
template <class T, class Of>
Span columns_of(int64_t first, int64_t rows, Of of) {
  Span all{INT64_MAX, 0};
  for (int64_t r = 0; r < rows; ++r) {
    const Span one = of(first + r);
    if (one.low < one.high) all = {std::min(all.low, one.low), std::max(all.high, one.high)};
  }
  if (all.empty()) return {0, 0};
  return {all.low / kPanel<T> * kPanel<T>, all.high};
}

}  // namespace ogive::OGIVE_ISA
