// What one thread needs for one node: its edges' scores, weights and gradients, head by head.
#pragma once

#include <algorithm>

#include "act.h"
#include "apart.h"
#include "buffer.h"
#include "dropout.h"
#include "edge_gather.h"
#include "edge_problem.h"
#include "rows.h"

namespace ogive::OGIVE_ISA::edge {

// Runs `with` for the activation of an additive score; its constant is what the curve takes as c.
template <class With>
void with_curve(const EdgeProblem& p, With with) {
  static thread_local Problem act{};  // cleared once: it is large, and rows are many
  act.act = p.act;
  act.act_constant = p.act_constant;
  with_act(act, with);
}

// One number a node: the score is v f(q + k), computed for many edges at once.
inline bool narrow(const EdgeProblem& p) { return p.act && p.width == 1; }

template <class T>
struct EdgeRow {
  const EdgeProblem& p;
  const Tail<T> tail, value_tail;
  const Coin coin;
  int64_t first = 0, n = 0, ld = 0;  // edges of the node: sorted edges first … first + n − 1
  Buffer<T> scores, raw, grads, spare;
  const T* gathered[kGathered];

  explicit EdgeRow(const EdgeProblem& problem)
      : p(problem),
        tail(problem.width),
        value_tail(problem.value_width),
        coin(problem.dropout) {}

  // Turns to a target; false where it has no edges.
  bool open(int64_t i) {
    constexpr int64_t W = Lanes<T>::count;
    first = p.target_start[i];
    n = p.target_start[i + 1] - first;
    ld = (n + W - 1) / W * W;
    scores.need(p.heads * ld);
    return n > 0;
  }
  T* of(Buffer<T>& buffer, int64_t h) const { return buffer.get() + h * ld; }

  // Calls `with(start, count)` for the row's edges, kGathered at a time, with their sources' rows
  // in `gathered`.
  template <class With>
  void over(const EdgeRows& rows, With with) {
    const int64_t bytes = p.heads * rows.head * sizeof(T);
    for (int64_t e = 0; e < n; e += kGathered) {
      const int64_t count = std::min(kGathered, n - e);
      for (int64_t k = 0; k < count; ++k) {
        gathered[k] = rows.at<const T>(p.source[first + e + k]);
        fetch(gathered[k], bytes);
      }
      with(e, count);
    }
  }

  // Scores of all heads, capped and with the bias; `raw` keeps them as they were before the cap
  // (of a narrow score: q + k).
  __attribute__((noinline)) void score(int64_t i, bool keeps, T pad) {
    keeps |= p.cap != 0;
    if (keeps) raw.need(p.heads * ld);
    if (narrow(p))
      sum_narrow(i);
    else if (p.act)
      with_curve(p, [&](auto curve, double c) { sum_curves<decltype(curve)>(i, T(c)); });
    else
      multiply(i);
    for (int64_t h = 0; h < p.heads; ++h)
      for (int64_t k = n; k < ld; ++k) of(scores, h)[k] = 0;
    if (keeps) std::copy_n(scores.get(), p.heads * ld, raw.get());
    if (narrow(p)) bend();
    for (int64_t h = 0; h < p.heads; ++h) {
      T* s = of(scores, h);
      if (p.cap) cap(s);
      if (p.bias) add_bias(h, s);
      for (int64_t k = n; k < ld; ++k) s[k] = pad;
    }
  }

  // Hidden edges weigh nothing, whatever the curve makes of −∞.
  void hide(int64_t h, T* values) const {
    if (!p.hides) return;
    for (int64_t e = 0; e < n; ++e)
      if (*p.bias.at<const T>(first + e, h) == kNothing<T>) values[e] = 0;
  }

  void drop(int64_t h, T* values) const {
    if (!p.dropout) return;
    for (int64_t e = 0; e < n; ++e)
      values[e] *= T(coin(counted(uint64_t(p.seed), p.order[first + e]), h));
  }

 private:
  T score_of_square(T square) const {
    return p.apart == kSquare ? T(-0.5 * p.scale) * square : T(-p.scale) * std::sqrt(square);
  }

  void multiply(int64_t i) {
    const T scale = T(p.scale);
    over(p.key, [&](int64_t e, int64_t count) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const T* q = p.query.at<const T>(i, h);
        T* s = of(scores, h) + e;
        for (int64_t k = 0; k < count; ++k) {
          const T* other = gathered[k] + h * p.key.head;
          s[k] = p.apart ? score_of_square(squared_distance<T>(q, other, p.width, tail))
                         : scale * product<T>(q, other, p.width, tail);
        }
      }
    });
  }

  template <class Curve>
  __attribute__((noinline)) void sum_curves(int64_t i, T c) {
    over(p.key, [&](int64_t e, int64_t count) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const T *q = p.query.at<const T>(i, h), *v = p.vectors.at<const T>(h);
        T* s = of(scores, h) + e;
        for (int64_t k = 0; k < count; ++k)
          s[k] = curve_sum<T, Curve>(v, q, gathered[k] + h * p.key.head, p.width, tail, splat<T>(c));
      }
    });
  }

  void sum_narrow(int64_t i) {
    over(p.key, [&](int64_t e, int64_t count) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const T q = *p.query.at<const T>(i, h);
        T* s = of(scores, h) + e;
        for (int64_t k = 0; k < count; ++k) s[k] = q + gathered[k][h * p.key.head];
      }
    });
  }

  void bend() {
    with_curve(p, [&](auto curve, double c) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const T v = *p.vectors.at<const T>(h);
        T* s = of(scores, h);
        for (int64_t k = 0; k < ld; k += Lanes<T>::count)
          store<T>(s + k, v * decltype(curve)::template value<T>(load<T>(s + k), splat<T>(T(c))));
      }
    });
  }

  void cap(T* s) {
    const T most = T(p.cap), over = T(1) / most;
    for (int64_t k = 0; k < ld; k += Lanes<T>::count)
      store<T>(s + k, most * hyperbolic_tangent<T>(load<T>(s + k) * over));
  }

  void add_bias(int64_t h, T* s) {
    for (int64_t e = 0; e < n; ++e) {
      const T b = *p.bias.at<const T>(first + e, h);
      s[e] = b == kNothing<T> ? b : s[e] + b;
    }
  }
};

}  // namespace ogive::OGIVE_ISA::edge
