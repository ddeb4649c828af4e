// Rows of scores become rows of weights, forward, and slopes, backward.
#pragma once

#include <algorithm>

#include "curves.h"
#include "problem.h"
#include "rows.h"
#include "seen.h"

namespace ogive::OGIVE_ISA {

// Every weight depends on its own score and its row's constant alone.
template <class T, class Curve>
struct Elementwise {
  static constexpr bool shares = false;

  static void weigh(const Row<T>& row, T c) {
    for (int64_t k = 0; k < row.n; k += Lanes<T>::count)
      store<T>(row.scores + k, Curve::template value<T>(load<T>(row.scores + k), splat<T>(c)));
    if (!row.whole()) row.hide(row.scores, 0);
  }
};

template <class T, class Shape>
struct SharedRows {
  static constexpr bool shares = true;

  // A sink, if there is one, comes as the row's constant: the logit of a key without a value.
  static void start(const Problem& p, int64_t b, int64_t h, int64_t rows, T* top, T* total) {
    const T sink = p.constant ? *p.constant.at<T>(b, h) : kNothing<T>;
    for (int64_t r = 0; r < rows; ++r) {
      top[r] = std::max(sink, Shape::template floor<T>);
      total[r] = sink == kNothing<T> ? 0 : 1;
    }
  }

  // Hides what the row hides and says what its shift becomes.
  static T peak(const Row<T>& row, T top) {
    if (!row.whole()) row.hide(row.scores, kNothing<T>);
    Vec<T> most = splat<T>(kNothing<T>);
    for (int64_t k = 0; k < row.n; k += Lanes<T>::count)
      most = larger<T>(Shape::template size<T>(load<T>(row.scores + k)), most);
    return std::max(maximum<T>(most), top);
  }

  // Scores become weights under the shift `now`; what the row has so far is rescaled to it.
  static void spend(const Row<T>& row, T now, T& top, T& total, T* out, int64_t wide) {
    const T shift = now == kNothing<T> ? 0 : now;
    Vec<T> sums{};
    for (int64_t k = 0; k < row.n; k += Lanes<T>::count) {
      const Share<T> one = Shape::template share<T>(load<T>(row.scores + k), splat<T>(shift));
      store<T>(row.scores + k, one.weight);
      sums += one.mass;
    }
    if (now == top) {
      total += sum<T>(sums);
      return;
    }
    if (top == kNothing<T>) {  // the row's first keys: out holds zeros
      total = sum<T>(sums);
    } else {
      const T shrink = std::exp(top - shift);
      total = total * shrink + sum<T>(sums);
      for (int64_t k = 0; k < wide; k += Lanes<T>::count)
        store<T>(out + k, load<T>(out + k) * shrink);
    }
    top = now;
  }

  static void weigh(const Row<T>& row, T& top, T& total, T* out, int64_t wide) {
    spend(row, peak(row, top), top, total, out, wide);
  }

  static T finish(const Problem& p, int64_t b, int64_t h, int64_t i, T top, T total) {
    if (p.lse) *p.lse.at<T>(b, h, i) = Shape::template kept<T>(top, total);
    return total == 0 ? 0 : 1 / total;
  }
};

// Scores and ∂/∂weights of a row become weights (if wanted) and ∂/∂scores, in place.
template <class T, class Curve>
struct ElementwiseSlope {
  static constexpr bool shares = false;
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> c, Vec<T>) {
    const Pair<T> both = Curve::template both<T>(s, c);
    s = both.value;
    g = both.slope * g;
  }
};

template <class T, class Shape>
struct SharedSlope {
  static constexpr bool shares = true;
  static void turn(Vec<T>& s, Vec<T>& g, Vec<T> lse, Vec<T> delta) {
    Shape::template turn<T>(s, g, lse, delta);
  }
};

}  // namespace ogive::OGIVE_ISA
