// Weight functions that give low scores exactly nothing: sparsemax and entmax15.
//
// Their threshold needs a whole row of scores: a thread holds a few rows, linear in the length. No
// score below top − 1 (top − 2 for entmax15) can weigh anything, so few are looked at again.
//
// Backward goes through the loops of the other weight functions. Of a row they need the threshold,
// which forward leaves in lse, and delta: the mean of ∂/∂weights over the support, by the shares
// that the slopes give. It is the same mean of the values, times the row's gradient.
#pragma once

#include <algorithm>
#include <cmath>

#include "additive_backward.h"
#include "thresholds.h"

namespace ogive::OGIVE_ISA {

constexpr int64_t kSparseRows = kLong.rows;

// From a score and the row's threshold, backward. A weight is at most 1, also where scores are so
// large that score and threshold lie further apart than they should.
template <class T, class Shape>
struct SparseSlope {
  static constexpr bool shares = true;
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> kept, Vec<T> delta) {
    const Vec<T> gap = s * T(Shape::factor) - kept;
    const Vec<T> above = gap > T(0) ? (gap < T(1) ? gap : splat<T>(1)) : Vec<T>{};
    s = Shape::template weight<T>(above);
    const Vec<T> share = Shape::template share<T>(above);
    g = share > T(0) ? share * (g - delta) : Vec<T>{};
  }
};

// All scores of a block of rows at once, −∞ where hidden: by dot products or distances, …
template <class T>
struct DotScores {
  ForwardScratch<T> tiles;

  Watch<T>& watch() { return tiles.watch; }
  void reserve(const Problem& p) {
    tiles.reserve(p);
    tiles.reserve_panels(p);  // packed for one query too
  }
  void pack(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows) {
    pack_keys<T>(p, b, h / (p.heads / p.shared), tiles);
    pack_rows<T>({p.query, b, h, i0, rows, p.width}, query_factor<T>(p), tiles.query.get(), p.width,
                 tiles.watch);
  }
  void score(const Problem& p, const Place& at) {
    score_panels<T>(p, at.rows, tiles.query.get(), tiles.kept.panels.get() + at.start * p.width,
                    tiles.sight.groups, tiles.tile.get(), kLong.columns);
  }
};

// … and of sums.
template <class T>
struct SumScores : AdditiveForward<T> {
  Watch<T>& watch() { return this->AdditiveForward<T>::watch; }
  void pack(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows) {
    pack_additive_keys<T>(p, b, h, *this);
    pack_features<T>(p, b, h, i0, rows, this->queries, watch());
  }
  void score(const Problem& p, const Place& at) {
    additive_scores<T>(p, at, this->tiles.sight, this->keys, this->queries, this->tiles.tile.get());
  }
};

template <class T, class Scores>
struct SparseScratch {
  Scores scores;
  Buffer<T> row, some, grad;
  int64_t across = 0;  // numbers of a row

  void reserve(const Problem& p) {
    scores.reserve(p);
    across = round_up(p.keys, kLong.columns) + kLong.columns;
    row.need(kSparseRows * across);
    some.need(across);
    grad.need(kSparseRows * wide<T>(p.value_width));
  }
};

template <class T, class Scores>
void score_rows(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows,
                SparseScratch<T, Scores>& mine) {
  auto& tiles = mine.scores.tiles;
  const int64_t columns = tiles.size.columns;
  mine.scores.pack(p, b, h, i0, rows);
  T* all = mine.row.get();
  for (int64_t r = 0; r < rows; ++r)
    std::fill(all + r * mine.across, all + (r + 1) * mine.across, kNothing<T>);
  for (int64_t j0 = 0; j0 < p.keys; j0 += columns) {
    const Place at{b, h, i0, rows, j0, std::min(columns, p.keys - j0), true};
    if (!tiles.sight.look(p, at, mine.scores.watch())) continue;
    mine.scores.score(p, at);
    for (int64_t r = 0; r < rows; ++r) {
      const Row<T> row = tiles.sight.row(r, tiles.tile.get());
      if (row.empty()) continue;
      if (p.cap > 0) row.squash(T(p.cap));
      row.add_bias();
      if (!row.whole()) row.hide(row.scores, kNothing<T>);
      std::copy(row.scores, row.scores + row.n,
                all + r * mine.across + j0 + tiles.sight.groups[r / kRows].low);
    }
  }
}

// A row of n scores becomes weights; returns the threshold, +∞ where the row sees nothing.
template <class T, class Shape>
T weigh_row(T* row, int64_t n, T* some) {
  constexpr int W = Lanes<T>::count;
  constexpr T factor = T(Shape::factor);
  Vec<T> most = splat<T>(kNothing<T>);
  for (int64_t k = 0; k < n; k += W) most = larger<T>(load<T>(row + k), most);
  const T top = maximum<T>(most);
  if (top == kNothing<T>) {
    std::fill(row, row + n, T(0));
    return -kNothing<T>;
  }
  int64_t count = 0;
  for (int64_t k = 0; k < n; k += 4 * W) {  // few have a chance: four vectors ask together
    Vec<T> best = splat<T>(kNothing<T>);
#pragma GCC unroll 4
    for (int64_t l = k; l < k + 4 * W; l += W) {
      const Vec<T> z = (load<T>(row + l) - top) * factor;
      store<T>(row + l, z);
      best = larger<T>(z, best);
    }
    if (!(maximum<T>(best) > T(-1))) continue;
    for (int64_t l = k; l < k + 4 * W; ++l)
      if (row[l] > T(-1)) some[count++] = row[l];
  }
  const double found = Shape::threshold(some, count);
  for (int64_t k = 0; k < n; k += W) {
    const Vec<T> gap = load<T>(row + k) - T(found);
    store<T>(row + k, Shape::template weight<T>(gap > T(0) ? gap : Vec<T>{}));
  }
  const T under = top * factor;
  T kept = T(double(top) * Shape::factor + found);
  // A square shows twice how its threshold was rounded; one key alone weighs 1 all the same.
  if (Shape::squares && found == -1 && under - kept < T(1))
    kept = std::nextafter(kept, kNothing<T>);
  return kept < under ? kept : std::nextafter(under, kNothing<T>);
}

// A row of n scores becomes the shares of its support.
template <class T, class Shape>
void share_row(T* row, int64_t n, T kept) {
  constexpr int W = Lanes<T>::count;
  double total = 0;
  for (int64_t k = 0; k < n; k += W) {
    const Vec<T> gap = load<T>(row + k) * T(Shape::factor) - kept;
    const Vec<T> above = gap > T(0) ? (gap < T(1) ? gap : splat<T>(1)) : Vec<T>{};
    const Vec<T> share = Shape::template share<T>(above);
    store<T>(row + k, share);
    total += sum<T>(share);
  }
  const T over = total > 0 ? T(1 / total) : T(0);
  for (int64_t k = 0; k < n; k += W) store<T>(row + k, load<T>(row + k) * over);
}

// The part of a row of weights that is not zero: whole tiles of nothing cost nothing.
template <class T>
bool any_weight(const T* from, int64_t n) {
  Vec<T> most{};
  for (int64_t k = 0; k < n; k += Lanes<T>::count) most = larger<T>(load<T>(from + k), most);
  return maximum<T>(most) > 0;
}

template <class T, class Scores>
void mix_rows(const Problem& p, int64_t rows, SparseScratch<T, Scores>& mine) {
  const int64_t across = wide<T>(p.value_width);
  T *all = mine.row.get(), *out = mine.scores.tiles.out.get();
  std::fill(out, out + rows * across, T(0));
  Span groups[kSparseRows / 6 + 1];
  for (int64_t j0 = 0; j0 < p.keys; j0 += kSpan) {
    for (int64_t g = 0; g * kRows < rows; ++g) {
      bool any = false;
      for (int64_t r = g * kRows; r < std::min<int64_t>(rows, (g + 1) * kRows); ++r)
        any = any || any_weight<T>(all + r * mine.across + j0, kSpan);
      groups[g] = {0, any ? std::min(kSpan, p.keys - j0) : 0};
    }
    add_product<T, kRowMajor>(rows, groups, all + j0, mine.across,
                              mine.scores.tiles.kept.value_tall.get() + j0 * kPanel<T>, p.keys,
                              p.value_width, out);
  }
}

// Forward (out and thresholds), or the delta of each row.
template <class T, class Shape, bool Delta, class Scores>
void sparse_block(const Problem& p, int64_t b, int64_t h, int64_t i0,
                  SparseScratch<T, Scores>& mine) {
  const int64_t rows = std::min(kSparseRows, p.queries - i0), n = round_up(p.keys, kSpan);
  score_rows(p, b, h, i0, rows, mine);
  for (int64_t r = 0; r < rows; ++r) {
    T* row = mine.row.get() + r * mine.across;
    if constexpr (Delta) {
      share_row<T, Shape>(row, n, *p.lse.at<T>(b, h, i0 + r));
    } else {
      const T kept = weigh_row<T, Shape>(row, n, mine.some.get());
      if (p.lse) *p.lse.at<T>(b, h, i0 + r) = kept;
    }
    if (p.dropout > 0) drop_row<T>(p, b, h, i0 + r, 0, n, row);
  }
  mix_rows(p, rows, mine);
  const int64_t across = wide<T>(p.value_width);
  const T* out = mine.scores.tiles.out.get();
  if constexpr (!Delta) {
    write_rows<T>({p.out, b, h, i0, rows, p.value_width}, out, across);
  } else {
    T* grad = mine.grad.get();
    Watch<T> nobody;
    pack_rows<T>({p.grad_out, b, h, i0, rows, p.value_width}, 1, grad, across, nobody);
    for (int64_t r = 0; r < rows; ++r) {
      Vec<T> total{};
      for (int64_t k = r * across; k < (r + 1) * across; k += Lanes<T>::count)
        total += load<T>(grad + k) * load<T>(out + k);
      *p.delta.at<T>(b, h, i0 + r) = sum<T>(total);
    }
  }
}

template <class T, class Shape, bool Delta, class Scores>
void sparse_rows(const Problem& p) {
  const int64_t blocks = (p.queries + kSparseRows - 1) / kSparseRows;
  const int64_t units = p.batch * p.heads * blocks, share = share_of(p, units, blocks);
  auto all = scratches<SparseScratch<T, Scores>>(p, units);
  deal(all, units, share, [&](int64_t u, SparseScratch<T, Scores>& mine) {
    sparse_block<T, Shape, Delta>(p, u / blocks / p.heads, u / blocks % p.heads,
                                  u % blocks * kSparseRows, mine);
  });
  for (SparseScratch<T, Scores>& one : all)
    if (p.wild && !one.scores.watch().tame()) *p.wild = true;
}

template <class T, class Shape>
void sparse_forward(const Problem& p) {
  if (p.act)
    sparse_rows<T, Shape, false, SumScores<T>>(p);
  else
    sparse_rows<T, Shape, false, DotScores<T>>(p);
}

template <class T, class Shape>
void sparse_backward(const Problem& p) {
  if (p.act) {
    sparse_rows<T, Shape, true, SumScores<T>>(p);
    additive_backward<T, SparseSlope<T, Shape>>(p);
  } else {
    sparse_rows<T, Shape, true, DotScores<T>>(p);
    backward<T, SparseSlope<T, Shape>>(p);
  }
}

}  // namespace ogive::OGIVE_ISA
