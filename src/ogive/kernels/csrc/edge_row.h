// What one thread needs for one node: its edges' scores, weights and gradients.
#pragma once

#include <algorithm>
#include <vector>

#include "act.h"
#include "apart.h"
#include "buffer.h"
#include "dropout.h"
#include "edge_gather.h"
#include "edge_problem.h"
#include "edge_weigh.h"

namespace ogive::OGIVE_ISA::edge {

// Runs `with` for the activation of an additive score; its constant is what the curve takes as c.
template <class With>
void with_curve(const EdgeProblem& p, With with) {
  static thread_local Problem act{};  // cleared once: it is large, and rows are many
  act.act = p.act;
  act.act_constant = p.act_constant;
  with_act(act, with);
}

// Nothing where there are no rows.
template <class T>
Heads<T> heads_of(const EdgeRows& nodes, int64_t i) {
  return {nodes ? nodes.at<T>(i) : nullptr, nodes.head};
}
template <class T>
Heads<const T> vectors_of(const EdgeProblem& p) {
  return {p.vectors.at<const T>(0), p.vectors.node};
}

// One number a node and head: the score is v f(q + k), computed for many edges at once. GAT's are
// products of rows with a vector each; other rows are one number themselves.
inline bool narrow(const EdgeProblem& p) { return p.act && (p.width == 1 || p.query_weight); }

// Those numbers, `stride` places a node, and what gradients they get.
template <class T>
struct Terms {
  const EdgeProblem& p;
  const HeadLanes<T> lanes;
  Buffer<T> query, key, grad_query;

  Terms(const EdgeProblem& problem, bool back) : p(problem), lanes(problem.heads) {
    if (!narrow(p)) return;
    query.need(lanes.size(p.targets));
    key.need(lanes.size(p.sources));
    if (back) grad_query.need(lanes.size(p.targets));
  }

  // By all threads of the team.
  void find() const {
    const int64_t nodes = narrow(p) ? std::max(p.targets, p.sources) : 0;
#pragma omp for
    for (int64_t i = 0; i < nodes; i += kGathered) {
      find(p.query, p.query_weight, i, p.targets, query);
      find(p.key, p.key_weight, i, p.sources, key);
    }
  }
  const T* of_query(int64_t i) const { return query.get() + i * lanes.stride; }
  const T* of_key(int64_t j) const { return key.get() + j * lanes.stride; }
  T* gradient(int64_t i) const { return grad_query.get() + i * lanes.stride; }

 private:
  // Of the nodes i … i + kGathered − 1.
  void find(const EdgeRows& nodes, const EdgeRows& weight, int64_t i, int64_t end,
            const Buffer<T>& found) const {
    const int64_t count = std::min(kGathered, end - i);
    T* to = found.get() + i * lanes.stride;
    if (count > 0 && weight) {
      const Tail<T> tail(p.width);
      sum_heads<T>(lanes, p.width, tail, count, to, [&](int64_t k, int64_t h) {
        const T *x = nodes.at<const T>(i + k, h), *w = weight.at<const T>(h);
        return [=](auto features) { return features(x) * features(w); };
      });
      return;
    }
    for (int64_t k = 0; k < count; ++k)
      for (int64_t h = 0; h < lanes.stride; ++h)
        to[k * lanes.stride + h] = h < p.heads ? *nodes.at<const T>(i + k, h) : T(0);
  }
};

template <class T>
struct EdgeRow {
  static constexpr int64_t W = Lanes<T>::count;
  static constexpr int64_t kAhead = 16;  // edges whose rows are asked for before their turn

  const EdgeProblem& p;
  const Terms<T>& terms;
  const HeadLanes<T> lanes;
  const Tail<T> tail, value_tail;
  const Coin coin;
  int64_t first = 0, n = 0, size = 0;  // edges of the node: sorted edges first … first + n − 1
  int64_t asked = 0;
  Buffer<T> scores, raw, grads, spare;
  Buffer<T> vectors;  // of a narrow score, v of each lane
  const T* rows[kGathered];

  EdgeRow(const EdgeProblem& problem, const Terms<T>& of)
      : p(problem),
        terms(of),
        lanes(problem.heads),
        tail(problem.width),
        value_tail(problem.value_width),
        coin(problem.dropout) {
    if (!narrow(p)) return;
    vectors.need(lanes.step);
    for (int64_t l = 0; l < lanes.step; ++l) {
      const int64_t h = l % lanes.stride;
      vectors.get()[l] = h < p.heads ? *p.vectors.at<const T>(h) : T(0);
    }
  }

  // Turns to a target; false where it has no edges.
  bool open(int64_t i) {
    first = p.target_start[i];
    n = p.target_start[i + 1] - first;
    size = lanes.size(n);
    scores.need(size);
    spare.need(size);
    if (n) ask(first, first + std::min(n, kGathered) + kAhead);
    return n > 0;
  }

  // Calls `with(start, gathered)` for the row's edges, kGathered at a time, with their sources' rows.
  template <class With>
  void over(const EdgeRows& nodes, With with) {
    for (int64_t e = 0; e < n; e += kGathered) {
      const int64_t count = std::min(kGathered, n - e);
      ask(first + e, first + e + count + kAhead);
      for (int64_t k = 0; k < count; ++k) rows[k] = nodes.at<const T>(p.source[first + e + k]);
      with(e, Gathered<T>{rows, count, nodes.head});
    }
  }

  // Calls `with(column, offset, c)` for every column of the scores: c holds the constants of its heads.
  template <class With>
  void over_columns(int64_t i, With with) const {
    const Column column{size, lanes.step, n, lanes.stride};
    for (int64_t at = 0; at < lanes.step; at += W) {
      Vec<T> c{};
      if (p.constant)
        for (int64_t l = 0; l < W; ++l) {
          const int64_t h = at + l % lanes.in_vector();
          if (h < p.heads) c[l] = *p.constant.at<const T>(i, h);
        }
      with(column, at, c);
    }
  }

  // Scores of all heads, capped and with the bias; `raw` keeps them as they were before the cap
  // (of a narrow score: q + k).
  __attribute__((noinline)) void score(int64_t i, bool keeps, T pad) {
    keeps |= p.cap != 0;
    T* s = scores.get();
    if (narrow(p))
      add_terms(i);
    else if (p.act)
      with_curve(p, [&](auto curve, double c) { sum_curves<decltype(curve)>(i, T(c)); });
    else
      multiply(i);
    if (keeps) std::copy_n(s, size, raw.need(size));
    if (narrow(p)) bend(s, s);
    if (p.cap) cap(s);
    if (p.bias) add_bias(s);
    std::fill(s + n * lanes.stride, s + size, pad);
  }

  // v f(q + k) from q + k.
  void bend(const T* from, T* to) const {
    with_curve(p, [&](auto curve, double c) {
      over_columns(0, [&](const Column& column, int64_t at, Vec<T>) {
        const Vec<T> v = load<T>(vectors.get() + at);
        for (int64_t k = at; k < at + column.size; k += column.step)
          store<T>(to + k, v * decltype(curve)::template value<T>(load<T>(from + k), splat<T>(T(c))));
      });
    });
  }

  // Hidden edges weigh nothing, whatever the curve makes of −∞.
  void hide(T* values) const {
    if (!p.hides) return;
    over_edge_heads([&](int64_t e, int64_t h, int64_t k) {
      if (*p.bias.at<const T>(first + e, h) == kNothing<T>) values[k] = 0;
    });
  }

  void drop(T* values) const {
    if (!p.dropout) return;
    over_edge_heads([&](int64_t e, int64_t h, int64_t k) {
      values[k] *= T(coin(counted(uint64_t(p.seed), p.order[first + e]), h));
    });
  }

 private:
  // Asks for the rows that edges up to `until` meet: while one node is computed, those of the next.
  void ask(int64_t from, int64_t until) {
    if (asked < from || asked > until) asked = from;
    for (until = std::min(until, p.target_start[p.targets]); asked < until; ++asked) {
      const int64_t j = p.source[asked];
      fetch(p.value.at<const T>(j), p.heads * p.value.head * sizeof(T));
      if (narrow(p))
        fetch(terms.of_key(j), lanes.stride * sizeof(T));
      else if (p.key.data != p.value.data)
        fetch(p.key.at<const T>(j), p.heads * p.key.head * sizeof(T));
    }
  }

  template <class With>
  void over_edge_heads(With with) const {
    for (int64_t e = 0; e < n; ++e)
      for (int64_t h = 0; h < p.heads; ++h) with(e, h, e * lanes.stride + h);
  }

  void multiply(int64_t i) {
    const auto own = heads_of<const T>(p.query, i);
    over(p.key, [&](int64_t e, const Gathered<T>& keys) {
      T* to = scores.get() + e * lanes.stride;
      sum_heads<T>(lanes, p.width, tail, keys.count, to, [&](int64_t k, int64_t h) {
        const T *q = own.at(h), *other = keys.at(k, h);
        return [=, away = p.apart != 0](auto features) {
          const Vec<T> a = features(q), b = features(other);
          return away ? (a - b) * (a - b) : a * b;
        };
      });
    });
    scale_scores();
  }

  // Of products, or of squares of distances.
  void scale_scores() {
    T* s = scores.get();
    const T factor = p.apart == kSquare ? T(-0.5 * p.scale) : p.apart ? T(-p.scale) : T(p.scale);
    if (p.apart == kLength)
      for (int64_t k = 0; k < size; ++k) s[k] = std::sqrt(s[k]);
    for (int64_t k = 0; k < size; k += W) store<T>(s + k, load<T>(s + k) * factor);
  }

  template <class Curve>
  __attribute__((noinline)) void sum_curves(int64_t i, T c) {
    const auto own = heads_of<const T>(p.query, i);
    over(p.key, [&](int64_t e, const Gathered<T>& keys) {
      T* to = scores.get() + e * lanes.stride;
      sum_heads<T>(lanes, p.width, tail, keys.count, to, [&](int64_t k, int64_t h) {
        const T *q = own.at(h), *other = keys.at(k, h), *v = p.vectors.at<const T>(h);
        return [=](auto features) {
          return features(v) * Curve::template value<T>(features(q) + features(other), splat<T>(c));
        };
      });
    });
  }

  void add_terms(int64_t i) {
    const int64_t stride = lanes.stride;
    const T* own = terms.of_query(i);
    store<T>(scores.get() + size - W, Vec<T>{});
    for (int64_t e = 0; e < n; ++e) {
      const T* other = terms.of_key(p.source[first + e]);
      T* to = scores.get() + e * stride;
      int64_t h = 0;
      for (; h + W <= stride; h += W) store<T>(to + h, load<T>(own + h) + load<T>(other + h));
      for (; h < stride; ++h) to[h] = own[h] + other[h];
    }
  }

  void cap(T* s) {
    const T most = T(p.cap), over = T(1) / most;
    for (int64_t k = 0; k < size; k += W)
      store<T>(s + k, most * hyperbolic_tangent<T>(load<T>(s + k) * over));
  }

  void add_bias(T* s) {
    over_edge_heads([&](int64_t e, int64_t h, int64_t k) {
      const T b = *p.bias.at<const T>(first + e, h);
      s[k] = b == kNothing<T> ? b : s[k] + b;
    });
  }
};

}  // namespace ogive::OGIVE_ISA::edge
