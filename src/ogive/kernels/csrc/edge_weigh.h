// A node's row of scores becomes its row of weights, and their gradients those of the scores.
//
// A row stands in memory whole, so weights that share a row need nothing of the forward pass again.
// Rows are padded to whole vectors: scores by `pad`, gradients by zero.
#pragma once

#include <algorithm>
#include <cmath>

#include "edge_gather.h"
#include "rows.h"
#include "thresholds.h"

namespace ogive::OGIVE_ISA::edge {

template <class T, class Curve>
struct EachEdge {
  static constexpr T pad = 0;

  static void weigh(T* s, T*, int64_t n, T c, bool) {
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(s + k, Curve::template value<T>(load<T>(s + k), splat<T>(c)));
  }
  static T slope(T* s, T* g, T*, int64_t n, T c, bool) {
    for (int64_t k = 0; k < n; k += Lanes<T>::count) {
      const Pair<T> both = Curve::template both<T>(load<T>(s + k), splat<T>(c));
      store<T>(s + k, both.value);
      store<T>(g + k, both.slope * load<T>(g + k));
    }
    return 0;
  }
};

template <class T>
inline T row_product(const T* a, const T* b, int64_t n) {
  Vec<T> sums{};
  for (int64_t k = 0; k < n; k += Lanes<T>::count) sums += load<T>(a + k) * load<T>(b + k);
  return folded<T>(sums);
}

template <class T, class Shape>
struct SharedEdges {
  static constexpr T pad = kNothing<T>;
  // Softmax and cog: dL/ds = |w| (g − sign(w) δ), from the weights alone.
  static constexpr bool direct =
      std::is_same_v<Shape, SoftmaxShape> || std::is_same_v<Shape, CogShape>;

  struct Totals {
    T top, total, sunk;  // the shift, Σ mass · e^−top with the sink, the sink's share
  };

  static Totals divide(T* s, int64_t n, T sink, bool sinks) {
    Vec<T> most = splat<T>(sinks ? std::max(sink, Shape::template floor<T>)
                                 : Shape::template floor<T>);
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      most = larger<T>(Shape::template size<T>(load<T>(s + k)), most);
    const T top = highest<T>(most), shift = top == kNothing<T> ? 0 : top;
    Vec<T> sums{};
    for (int64_t k = 0; k < n; k += Lanes<T>::count) {
      const Share<T> one = Shape::template share<T>(load<T>(s + k), shift);
      store<T>(s + k, one.weight);
      sums += one.mass;
    }
    const T sunk = sinks ? std::exp(sink - shift) : 0, total = folded<T>(sums) + sunk;
    const T over = total == 0 ? 0 : 1 / total;
    for (int64_t k = 0; k < n; k += Lanes<T>::count) store<T>(s + k, load<T>(s + k) * over);
    return {top, total, sunk * over};
  }

  static void weigh(T* s, T*, int64_t n, T sink, bool sinks) { divide(s, n, sink, sinks); }

  // Returns dL/dz of the sink's logit z.
  static T slope(T* s, T* g, T* spare, int64_t n, T sink, bool sinks) {
    if constexpr (!direct)
      for (int64_t k = 0; k < n; k += Lanes<T>::count) store<T>(spare + k, load<T>(s + k));
    const Totals of = divide(s, n, sink, sinks);
    const T delta = row_product<T>(s, g, n);
    if constexpr (direct) {
      const Vec<T> down = splat<T>(delta);
      for (int64_t k = 0; k < n; k += Lanes<T>::count) {
        const Vec<T> w = load<T>(s + k), signed_delta = w < T(0) ? -down : down;
        store<T>(g + k, absolute<T>(w) * (load<T>(g + k) - signed_delta));
      }
    } else {
      const Vec<T> kept = splat<T>(Shape::template kept<T>(of.top, of.total));
      for (int64_t k = 0; k < n; k += Lanes<T>::count) {
        Vec<T> score = load<T>(spare + k), grad = load<T>(g + k);
        Shape::template turn<T>(score, grad, kept, splat<T>(delta));
        store<T>(g + k, grad);
      }
    }
    return -of.sunk * delta;
  }
};

template <class T, class Shape>
struct SparseEdges {
  static constexpr T pad = kNothing<T>;

  static void weigh(T* s, T* spare, int64_t n, T, bool) {
    const T threshold = lower(s, spare, n);
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(s + k, Shape::template weight<T>(above(s + k, threshold)));
  }
  static T slope(T* s, T* g, T* spare, int64_t n, T, bool) {
    const T threshold = lower(s, spare, n);
    Vec<T> totals{}, products{};
    for (int64_t k = 0; k < n; k += Lanes<T>::count) {
      const Vec<T> gap = above(s + k, threshold), share = Shape::template share<T>(gap);
      store<T>(s + k, Shape::template weight<T>(gap));
      store<T>(spare + k, share);
      totals += share;
      products += share * load<T>(g + k);
    }
    const T total = folded<T>(totals), delta = total > 0 ? folded<T>(products) / total : 0;
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(g + k, load<T>(spare + k) * (load<T>(g + k) - delta));
    return 0;
  }

 private:
  // Scores become those below the top, times the shape's factor; returns their threshold, infinite
  // where all are hidden.
  static T lower(T* s, T* spare, int64_t n) {
    Vec<T> most = splat<T>(kNothing<T>);
    for (int64_t k = 0; k < n; k += Lanes<T>::count) most = larger<T>(load<T>(s + k), most);
    const T top = highest<T>(most);
    if (top == kNothing<T>) return -kNothing<T>;
    int64_t count = 0;
    for (int64_t k = 0; k < n; k += Lanes<T>::count)
      store<T>(s + k, (load<T>(s + k) - top) * T(Shape::factor));
    for (int64_t k = 0; k < n; ++k)
      if (s[k] > T(-1)) spare[count++] = s[k];
    return T(Shape::threshold(spare, count));
  }
  static Vec<T> above(const T* s, T threshold) {
    const Vec<T> gap = load<T>(s) - threshold;
    return gap > T(0) ? gap : Vec<T>{};
  }
};

}  // namespace ogive::OGIVE_ISA::edge
