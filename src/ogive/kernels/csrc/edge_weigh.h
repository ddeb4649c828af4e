// A node's scores become its weights, and their gradients those of the scores.
//
// They stand in memory whole, so weights that share a row need nothing of the forward pass again.
// Each call sees one Column: every vector that holds the same heads. Places beyond the edges are
// filled: scores with `pad`, gradients with zero.
#pragma once

#include <algorithm>
#include <cmath>

#include "edge_gather.h"
#include "rows.h"
#include "thresholds.h"

namespace ogive::OGIVE_ISA::edge {

struct Column {
  int64_t size, step;  // vectors at 0, step, … below size
  int64_t edges, stride;
};

template <class T, class Curve>
struct EachEdge {
  static constexpr T pad = 0;

  static void weigh(const Column& at, T* s, T*, Vec<T> c, bool) {
    for (int64_t k = 0; k < at.size; k += at.step)
      store<T>(s + k, Curve::template value<T>(load<T>(s + k), c));
  }
  static Vec<T> slope(const Column& at, T* s, T* g, T*, Vec<T> c, bool) {
    for (int64_t k = 0; k < at.size; k += at.step) {
      const Pair<T> both = Curve::template both<T>(load<T>(s + k), c);
      store<T>(s + k, both.value);
      store<T>(g + k, both.slope * load<T>(g + k));
    }
    return Vec<T>{};
  }
};

template <class T, class Shape>
struct SharedEdges {
  static constexpr T pad = kNothing<T>;
  // Softmax and cog: dL/ds = |w| (g − sign(w) δ), from the weights alone.
  static constexpr bool direct =
      std::is_same_v<Shape, SoftmaxShape> || std::is_same_v<Shape, CogShape>;

  struct Totals {
    Vec<T> top, total, sunk;  // the shift, Σ mass · e^−top with the sink, the sink's share
  };

  static Totals divide(const Column& at, T* s, Vec<T> sink, bool sinks) {
    const Vec<T> floor = splat<T>(Shape::template floor<T>);
    Vec<T> top = sinks ? larger<T>(sink, floor) : floor;
    for (int64_t k = 0; k < at.size; k += at.step)
      top = larger<T>(Shape::template size<T>(load<T>(s + k)), top);
    top = over_edges<T>(top, at.stride, [](Vec<T> a, Vec<T> b) { return larger<T>(a, b); });
    const Vec<T> shift = top == kNothing<T> ? Vec<T>{} : top;
    Vec<T> total{};
    for (int64_t k = 0; k < at.size; k += at.step) {
      const Share<T> one = Shape::template share<T>(load<T>(s + k), shift);
      store<T>(s + k, one.weight);
      total += one.mass;
    }
    const Vec<T> sunk = sinks ? exp_below<T>(sink - shift) : Vec<T>{};
    total = sum_over_edges<T>(total, at.stride) + sunk;
    const Vec<T> over = total == T(0) ? Vec<T>{} : T(1) / total;
    for (int64_t k = 0; k < at.size; k += at.step) store<T>(s + k, load<T>(s + k) * over);
    return {top, total, sunk * over};
  }

  static void weigh(const Column& at, T* s, T*, Vec<T> sink, bool sinks) {
    divide(at, s, sink, sinks);
  }

  // Returns dL/dz of the sink's logit z.
  static Vec<T> slope(const Column& at, T* s, T* g, T* spare, Vec<T> sink, bool sinks) {
    if constexpr (!direct)
      for (int64_t k = 0; k < at.size; k += at.step) store<T>(spare + k, load<T>(s + k));
    const Totals of = divide(at, s, sink, sinks);
    Vec<T> delta{};
    for (int64_t k = 0; k < at.size; k += at.step) delta += load<T>(s + k) * load<T>(g + k);
    delta = sum_over_edges<T>(delta, at.stride);
    if constexpr (direct) {
      for (int64_t k = 0; k < at.size; k += at.step) {
        const Vec<T> w = load<T>(s + k), signed_delta = w < T(0) ? -delta : delta;
        store<T>(g + k, absolute<T>(w) * (load<T>(g + k) - signed_delta));
      }
    } else {
      Vec<T> kept;
      for (int l = 0; l < Lanes<T>::count; ++l)
        kept[l] = Shape::template kept<T>(of.top[l], of.total[l]);
      for (int64_t k = 0; k < at.size; k += at.step) {
        Vec<T> score = load<T>(spare + k), grad = load<T>(g + k);
        const auto nothing = score == kNothing<T>;  // no edge: sums over edges are to come
        Shape::template turn<T>(score, grad, kept, delta);
        store<T>(g + k, nothing ? Vec<T>{} : grad);
      }
    }
    return -of.sunk * delta;
  }
};

template <class T, class Shape>
struct SparseEdges {
  static constexpr T pad = kNothing<T>;

  static void weigh(const Column& at, T* s, T* spare, Vec<T>, bool) {
    const Vec<T> threshold = lower(at, s, spare);
    for (int64_t k = 0; k < at.size; k += at.step)
      store<T>(s + k, Shape::template weight<T>(above(s + k, threshold)));
  }
  static Vec<T> slope(const Column& at, T* s, T* g, T* spare, Vec<T>, bool) {
    const Vec<T> threshold = lower(at, s, spare);
    Vec<T> total{}, products{};
    for (int64_t k = 0; k < at.size; k += at.step) {
      const Vec<T> gap = above(s + k, threshold), share = Shape::template share<T>(gap);
      store<T>(s + k, Shape::template weight<T>(gap));
      store<T>(spare + k, share);
      total += share;
      products += share * load<T>(g + k);
    }
    total = sum_over_edges<T>(total, at.stride);
    products = sum_over_edges<T>(products, at.stride);
    const Vec<T> delta = total > T(0) ? products / total : Vec<T>{};
    for (int64_t k = 0; k < at.size; k += at.step)
      store<T>(g + k, load<T>(spare + k) * (load<T>(g + k) - delta));
    return Vec<T>{};
  }

 private:
  // Scores become those below the top, times the shape's factor; returns their threshold, infinite
  // where all are hidden.
  static Vec<T> lower(const Column& at, T* s, T* spare) {
    constexpr int64_t W = Lanes<T>::count;
    Vec<T> top = splat<T>(kNothing<T>), threshold;
    for (int64_t k = 0; k < at.size; k += at.step) top = larger<T>(load<T>(s + k), top);
    top = over_edges<T>(top, at.stride, [](Vec<T> a, Vec<T> b) { return larger<T>(a, b); });
    for (int64_t k = 0; k < at.size; k += at.step)
      store<T>(s + k, (load<T>(s + k) - top) * T(Shape::factor));
    const int64_t heads = std::min(at.stride, W);
    for (int64_t l = 0; l < heads; ++l) {
      int64_t count = 0;
      for (int64_t e = 0; e < at.edges; ++e)
        if (s[l + e * at.stride] > T(-1)) spare[count++] = s[l + e * at.stride];
      const T found = count ? T(Shape::threshold(spare, count)) : -kNothing<T>;
      for (int64_t k = l; k < W; k += heads) threshold[k] = found;
    }
    return threshold;
  }
  static Vec<T> above(const T* s, Vec<T> threshold) {
    const Vec<T> gap = load<T>(s) - threshold;
    return gap > T(0) ? gap : Vec<T>{};
  }
};

}  // namespace ogive::OGIVE_ISA::edge
