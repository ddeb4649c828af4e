// What linear attention keeps while it walks along a head: packed rows, and sums of outer products.
//
// Outer products of a few dozen rows are summed in the working precision and then added to a total
// in double: a long sum of positive terms would lose more digits than the definition does.
#pragma once

#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "linear.h"
#include "linear_tile.h"

namespace ogive::OGIVE_ISA {

constexpr int64_t kChunk = 48;  // rows that are packed at a time
constexpr int64_t kPieces = 4;  // chunks between two additions in double, where none is asked for

// Columns of a tile: a chunk's, whole panels of them.
template <class T>
constexpr int64_t kChunkPanel = (kChunk + kPanel<T> - 1) / kPanel<T> * kPanel<T>;

// The largest absolute value seen, by its bits: those of NaN are larger than those of ∞.
template <class T>
class Peak {
 public:
  void see(const T* from, int64_t n) {
    for (int64_t k = 0; k < n; k += Lanes<T>::count) {
      const Int<T> bits = (Int<T>)absolute<T>(load<T>(from + k));
      top_ = bits > top_ ? bits : top_;
    }
  }
  double value() const {
    double most = 0;
    const Vec<T> all = (Vec<T>)top_;
    for (int i = 0; i < Lanes<T>::count; ++i)
      most = all[i] <= std::numeric_limits<T>::max() ? std::max(most, double(all[i]))
                                                     : std::numeric_limits<double>::infinity();
    return most;
  }

 private:
  Int<T> top_{};
};

// Rows of one operand, zeros up to whole vectors and whole groups of rows.
template <class T>
struct Rows {
  Buffer<T> room;
  T* data = nullptr;
  int64_t n = 0, tall = 0, wide = 0;

  void pack(const View& from, int64_t a, int64_t b, int64_t first, int64_t count, int64_t columns,
            Peak<T>& peak) {
    n = count;
    tall = round_up(n, kRows);
    wide = round_up(columns, kPanel<T>);
    data = room.need(round_up(kChunk, kRows) * wide);
    pack_rows<T>(from.at<T>(a, b, first), n, from.stride[2], columns, from.stride[3], T(1), data,
                 tall, wide);
    peak.see(data, n * wide);
  }
  void times(int64_t row, T factor) {
    T* at = data + row * wide;
    for (int64_t k = 0; k < wide; k += Lanes<T>::count) store<T>(at + k, load<T>(at + k) * factor);
  }
  void clear(int64_t row) { std::fill(data + row * wide, data + (row + 1) * wide, T(0)); }
};

// c[rows][columns] = or += a[rows][depth] · b[depth][columns], rows in sixes, columns in panels.
template <class T, bool Add>
void product(int64_t rows, int64_t depth, const T* a, int64_t lda, const T* b, int64_t ldb,
             int64_t columns, T* c, int64_t ldc) {
  for (int64_t j = 0; j < columns; j += kPanel<T>)
    for (int64_t r = 0; r < rows; r += kRows)
      micro<T, kRows, Add>(depth, a + r * lda, lda, 1, b + j, ldb, c + r * ldc + j, ldc);
}

// Σ left_n right_nᵀ (left width × right width), and Σ weight_n summed_n, over the rows so far.
template <class T>
class State {
 public:
  void start(int64_t left_width, int64_t right_width, int64_t sum_width) {
    tall_ = round_up(left_width, 2);
    sum_width_ = sum_width;
    wide_ = round_up(right_width, kPanel<T>);
    size_ = tall_ * wide_;
    std::fill_n(part_.need(size_), size_, T(0));
    std::fill_n(sum_part_.need(sum_width_), sum_width_, T(0));
    std::fill_n(total_.need(size_), size_, 0.0);
    std::fill_n(sum_total_.need(sum_width_), sum_width_, 0.0);
    current_.need(size_);
    sum_.need(sum_width_);
    pieces_ = 0;
    stale_ = true;
  }
  // Null weighs every row 1.
  void add(const Rows<T>& left, const Rows<T>& right, const Rows<T>& summed, const T* weights) {
    add_transposed_product<T>(tall_, left.n, left.data, left.wide, right.data, right.wide, wide_,
                              part_.get(), wide_);
    T* __restrict sums = sum_part_.get();
    for (int64_t r = 0; r < left.n; ++r) {
      const T* row = summed.data + r * summed.wide;
      const T weight = weights ? weights[r] : T(1);
      for (int64_t k = 0; k < sum_width_; ++k) sums[k] += row[k] * weight;
    }
    stale_ = true;
    if (++pieces_ == kPieces) fold_all();
  }
  bool stale() const { return stale_; }
  // Both sums in the working precision, once nothing is left to add for now.
  void settle() {
    if (!stale_) return;
    fold_all();
    round(total_.get(), current_.get(), size_);
    round(sum_total_.get(), sum_.get(), sum_width_);
    stale_ = false;
  }
  const T* get() const { return current_.get(); }
  const T* sum() const { return sum_.get(); }
  int64_t wide() const { return wide_; }
  // The settled state with its axes exchanged, (right width × left width), rows `wide` apart.
  void transposed(int64_t right_width, int64_t wide, T* to) const {
    const T* from = current_.get();
    constexpr int64_t step = 8;
    for (int64_t c = 0; c < right_width; c += step)
      for (int64_t r = 0; r < tall_; ++r)
        for (int64_t k = c; k < std::min(c + step, right_width); ++k)
          to[k * wide + r] = from[r * wide_ + k];
    for (int64_t c = 0; c < right_width; ++c)
      for (int64_t r = tall_; r < wide; ++r) to[c * wide + r] = 0;
  }

 private:
  static void fold(T* __restrict part, double* __restrict total, int64_t n) {
    for (int64_t k = 0; k < n; ++k) {
      total[k] += part[k];
      part[k] = 0;
    }
  }
  static void round(const double* __restrict total, T* __restrict to, int64_t n) {
    for (int64_t k = 0; k < n; ++k) to[k] = T(total[k]);
  }
  void fold_all() {
    fold(part_.get(), total_.get(), size_);
    fold(sum_part_.get(), sum_total_.get(), sum_width_);
    pieces_ = 0;
  }

  Buffer<T> part_, sum_part_, current_, sum_;
  Buffer<double> total_, sum_total_;
  int64_t tall_ = 0, wide_ = 0, size_ = 0, sum_width_ = 0, pieces_ = 0;
  bool stale_ = true;
};

// Where a block of queries stands: all of them see the keys before `low`, query r of the block
// sees of [low, high) those up to r + ahead.
struct Stand {
  int64_t low, high, ahead;
  int64_t seen(int64_t r) const {  // of [low, high)
    return std::clamp<int64_t>(r + ahead + 1, 0, high - low);
  }
};

inline Stand stand(const LinearProblem& p, int64_t b, int64_t i0, int64_t n) {
  if (!p.bounded) return {p.keys, p.keys, 0};
  const int64_t at = i0 + p.right + (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);
  const int64_t low = std::clamp<int64_t>(at, 0, p.keys);
  return {low, std::clamp<int64_t>(at + n, 0, p.keys), at - low};
}

template <class T>
bool shows(const LinearProblem& p, int64_t b, int64_t g, int64_t j) {
  return !p.mask || *p.mask.at<const uint8_t>(b, g, 0, j);
}

// Packed keys and values; those that the mask hides read zero and are never looked at.
template <class T>
void pack_pairs(const LinearProblem& p, int64_t b, int64_t g, int64_t j0, int64_t n, Rows<T>& keys,
                Rows<T>& values, Peak<T>* peaks) {
  if (!p.mask) {
    keys.pack(p.key, b, g, j0, n, p.width, peaks[1]);
    values.pack(p.value, b, g, j0, n, p.value_width, peaks[2]);
    return;
  }
  Peak<T> unread;
  keys.pack(p.key, b, g, j0, n, p.width, unread);
  values.pack(p.value, b, g, j0, n, p.value_width, unread);
  for (int64_t r = 0; r < n; ++r)
    if (!shows<T>(p, b, g, j0 + r)) keys.clear(r), values.clear(r);
  peaks[1].see(keys.data, n * keys.wide);
  peaks[2].see(values.data, n * values.wide);
}

// A square of products of a block with packed rows, a group of rows at a time, zero where unseen:
// column c of row r is seen if c < at.seen(r). `more` is added to the seen columns of each row.
// Calls with(row, columns that any row of its group sees) after each group.
template <class T, class With>
void triangle(const Stand& at, const Rows<T>& left, int64_t depth, const T* panels, T* tile,
              const T* more, With with) {
  const int64_t whole = round_up(at.high - at.low, kPanel<T>);
  for (int64_t r = 0; r < left.tall; r += kRows) {
    const int64_t columns = at.seen(r + kRows - 1);
    T* rows = tile + r * kChunkPanel<T>;
    for (int64_t c = 0; c < columns; c += kPanel<T>)
      micro<T, kRows, false>(depth, left.data + r * left.wide, left.wide, 1, panels + c * depth,
                             kPanel<T>, rows + c, kChunkPanel<T>);
    for (int64_t k = 0; k < kRows; ++k) {
      T* row = rows + k * kChunkPanel<T>;
      const int64_t seen = r + k < left.n ? at.seen(r + k) : 0;
      if (more)
        for (int64_t c = 0; c < seen; ++c) row[c] += more[r + k];
      std::fill(row + seen, row + whole, T(0));
    }
    with(r, columns);
  }
}

}  // namespace ogive::OGIVE_ISA
