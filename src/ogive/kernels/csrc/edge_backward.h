// Backward: a pass over targets gives what queries, biases and vectors get and leaves each edge's
// weight and score gradient; a pass over sources gathers what keys and values get. Every sum is in
// one thread and in one order. Nothing is computed for a gradient that is not asked for.
#pragma once

#include <vector>

#include "edge_forward.h"

namespace ogive::OGIVE_ISA::edge {

// Sums over nodes are made in blocks and added in order; how many follows from the graph alone.
inline int64_t node_block(int64_t nodes) { return std::max<int64_t>(16, (nodes + 255) / 256); }

template <class T>
struct BlockSums {
  int64_t block, size;
  std::vector<T> sums;

  BlockSums(const EdgeRows& wanted, int64_t nodes, int64_t n)
      : block(node_block(nodes)),
        size(n),
        sums(wanted ? (nodes + block - 1) / block * size : 0) {}
  T* of(int64_t node) { return sums.empty() ? nullptr : sums.data() + node / block * size; }
  void add_up(const EdgeRows& wanted) const {
    if (!wanted) return;
    T* to = wanted.at<T>(0);
    std::fill_n(to, size, T(0));
    for (size_t k = 0; k < sums.size(); ++k) to[k % size] += sums[k];
  }
};

template <class T>
struct AllSums {
  BlockSums<T> vectors, sinks, query_weight, key_weight;

  explicit AllSums(const EdgeProblem& p)
      : vectors(p.grad_vectors, p.targets, p.heads * (narrow(p) ? 1 : p.width)),
        sinks(p.grad_constant, p.targets, p.heads),
        query_weight(p.grad_query_weight, p.targets, p.heads * p.width),
        key_weight(p.grad_key_weight, p.sources, p.heads * p.width) {}
  void add_up(const EdgeProblem& p) const {
    vectors.add_up(p.grad_vectors);
    sinks.add_up(p.grad_constant);
    query_weight.add_up(p.grad_query_weight);
    key_weight.add_up(p.grad_key_weight);
  }
};

// What nodes give to the gradient of their neighbour `own`: themselves for products, the way to them
// for distances.
template <class T>
void add_sides(const EdgeProblem& p, const HeadLanes<T>& lanes, const Gathered<T>& from,
               const Tail<T>& tail, const T* w, Sums<T> to, Heads<const T> own) {
  if (p.apart)
    add_rows<T, true>(lanes, from, p.width, tail, w, to, own);
  else
    add_rows<T>(lanes, from, p.width, tail, w, to);
}

// From gradients of a node's terms to that of its row, on top of what is there if `adds`, and to those
// of the weights, in `sums`.
template <class T>
__attribute__((noinline)) void spread_terms(const EdgeProblem& p, const T* grads,
                                            const EdgeRows& nodes, const EdgeRows& weight,
                                            const EdgeRows& wanted, int64_t i, bool adds, T* sums) {
  if (!weight) {
    for (int64_t h = 0; wanted && h < p.heads; ++h) {
      T* to = wanted.at<T>(i, h);
      *to = adds ? *to + grads[h] : grads[h];
    }
    return;
  }
  constexpr int W = Lanes<T>::count;
  const Tail<T> tail(p.width);
  in_blocks<T>(p.heads, p.width, tail, [&](auto n, auto share, int64_t h, int64_t d, auto& how) {
    constexpr int N = n, Share = share;
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) {
      const int64_t head = h + k / Share, feature = d + k % Share * W;
      const T g = grads[head];
      if (wanted)
        Sums<T>{heads_of<T>(wanted, i), adds}.put(
            how, head, feature, g * how.load(weight.at<const T>(head) + feature));
      if (!sums) continue;
      T* to = sums + head * p.width + feature;
      how.store(to, how.load(to) + g * how.load(nodes.at<const T>(i, head) + feature));
    }
  });
}

// The numbers of all heads, from where they stand close.
template <class T>
void keep_heads(const EdgeRows& rows, int64_t edge, int64_t heads, const T* values) {
  T* to = rows.at<T>(edge);
  for (int64_t h = 0; h < heads; ++h) to[h] = values[h];
}

// What a target's backward pass does whatever the weight function.
template <class T>
struct TargetPass {
  const EdgeProblem& p;
  const Terms<T>& terms;
  AllSums<T>& sums;
  EdgeRow<T> row;

  TargetPass(const EdgeProblem& problem, const Terms<T>& of, AllSums<T>& to)
      : p(problem), terms(of), sums(to), row(problem, of) {}

  // Scores and gradients of weights; false where the target has no edges.
  __attribute__((noinline)) bool open(int64_t i, T pad) {
    if (!row.open(i)) {
      if (p.grad_query && !joined()) clear<T>(p.grad_query, i, p.heads, p.width);
      if (narrow(p)) std::fill_n(terms.gradient(i), row.lanes.stride, T(0));
      return false;
    }
    row.grads.need(row.size);
    row.score(i, narrow(p) || p.apart == kLength, pad);
    weight_gradients(i);
    return true;
  }

  // Keeps the weights and what the gradients of scores come to.
  __attribute__((noinline)) void close(int64_t i) {
    T *s = row.scores.get(), *g = row.grads.get();
    row.hide(s);
    row.hide(g);
    row.drop(s);
    keep(p.weights, s);
    if (p.grad_bias) keep(p.grad_bias, g);
    score_gradients(i, g);
    keep(p.slopes, g);
    if (!narrow(p))
      query_gradient(i);
    else if (!joined())
      spread_terms<T>(p, terms.gradient(i), p.query, p.query_weight, p.grad_query, i, false,
                      sums.query_weight.of(i));
  }

 private:
  // Whether the pass over sources adds the query's gradient to the value's.
  bool joined() const { return p.grad_query && p.grad_query.data == p.grad_value.data; }

  void query_gradient(int64_t i) {
    if (!p.grad_query && !p.grad_vectors) return;
    if (p.act)
      with_curve(p, [&](auto curve, double c) { curve_gradient<decltype(curve)>(i, T(c)); });
    else
      row.over(p.key, [&](int64_t e, const Gathered<T>& keys) {
        add_sides<T>(p, row.lanes, keys, row.tail, row.grads.get() + e * row.lanes.stride,
                     {heads_of<T>(p.grad_query, i), e > 0}, heads_of<const T>(p.query, i));
      });
  }

  template <class Curve>
  __attribute__((noinline)) void curve_gradient(int64_t i, T c) {
    row.over(p.key, [&](int64_t e, const Gathered<T>& keys) {
      add_slopes<T, Curve>(row.lanes, keys, p.width, row.tail,
                           row.grads.get() + e * row.lanes.stride, splat<T>(c),
                           heads_of<const T>(p.query, i), vectors_of<T>(p),
                           {heads_of<T>(p.grad_query, i), e > 0}, sums.vectors.of(i));
    });
  }

  void weight_gradients(int64_t i) {
    const auto own = heads_of<const T>(p.grad_out, i);
    T* g = row.grads.get();
    row.over(p.value, [&](int64_t e, const Gathered<T>& values) {
      T* to = g + e * row.lanes.stride;
      sum_heads<T>(row.lanes, p.value_width, row.value_tail, values.count, to,
                   [&](int64_t k, int64_t h) {
                     const T *grad = own.at(h), *value = values.at(k, h);
                     return [=](auto features) { return features(grad) * features(value); };
                   });
    });
    row.drop(g);
  }

  // From gradients of scores to those of the products or sums before cap, scale and vectors.
  void score_gradients(int64_t i, T* g) {
    constexpr int64_t W = Lanes<T>::count;
    const T* raw = row.raw.get();
    if (p.cap) {
      const T over = T(1) / T(p.cap);
      if (narrow(p)) row.bend(raw, row.spare.get());
      const T* before = narrow(p) ? row.spare.get() : raw;
      for (int64_t k = 0; k < row.size; k += W)
        store<T>(g + k, load<T>(g + k) * tanh_slope<T>(load<T>(before + k) * over));
    }
    if (narrow(p)) {
      narrow_gradients(i, g);
    } else if (!p.act) {
      if (p.apart == kLength) through_length(g, raw);
      for (int64_t k = 0; k < row.size; k += W) store<T>(g + k, load<T>(g + k) * T(p.scale));
    }
  }

  // 1/d, and nothing where there is no distance.
  void through_length(T* g, const T* raw) {
    for (int64_t k = 0; k < row.size; k += Lanes<T>::count) {
      const Vec<T> s = load<T>(raw + k);
      store<T>(g + k, s == T(0) ? Vec<T>{} : load<T>(g + k) * (T(-p.scale) / s));
    }
  }

  void narrow_gradients(int64_t i, T* g) {
    with_curve(p, [&](auto curve, double c) {
      row.over_columns(i, [&](const Column& column, int64_t at, Vec<T>) {
        const Vec<T> v = load<T>(row.vectors.get() + at);
        Vec<T> total{}, heights{};
        for (int64_t k = at; k < at + column.size; k += column.step) {
          const Vec<T> q = load<T>(row.raw.get() + k), grad = load<T>(g + k);
          const Pair<T> one = decltype(curve)::template both<T>(q, splat<T>(T(c)));
          const Vec<T> slope = v * grad * one.slope;
          heights += grad * one.value;
          total += slope;
          store<T>(g + k, slope);
        }
        total = sum_over_edges<T>(total, column.stride);
        heights = sum_over_edges<T>(heights, column.stride);
        T* vector_sums = sums.vectors.of(i);
        for (int64_t l = 0; l < row.lanes.in_vector(); ++l) {
          terms.gradient(i)[at + l] = total[l];
          if (vector_sums && at + l < p.heads) vector_sums[at + l] += heights[l];
        }
      });
    });
  }

  void keep(const EdgeRows& rows, const T* values) {
    for (int64_t e = 0; e < row.n; ++e)
      keep_heads<T>(rows, row.first + e, p.heads, values + e * row.lanes.stride);
  }
};

template <class T>
struct SourcePass {
  const EdgeProblem& p;
  const Terms<T>& terms;
  AllSums<T>& sums;
  const HeadLanes<T> lanes;
  const Tail<T> tail, value_tail;
  Buffer<T> weights, slopes, total;
  int64_t asked = 0;
  const T *queries[kGathered], *grads[kGathered];

  SourcePass(const EdgeProblem& problem, const Terms<T>& of, AllSums<T>& to)
      : p(problem),
        terms(of),
        sums(to),
        lanes(problem.heads),
        tail(problem.width),
        value_tail(problem.value_width) {
    weights.need(lanes.size(kGathered));
    slopes.need(lanes.size(kGathered));
    total.need(lanes.stride);
  }

  __attribute__((noinline)) void run(int64_t j) {
    const int64_t start = p.source_start[j], end = p.source_start[j + 1];
    if (start == end) {
      if (p.grad_key) clear<T>(p.grad_key, j, p.heads, p.width);
      if (p.grad_value) clear<T>(p.grad_value, j, p.heads, p.value_width);
    }
    if (narrow(p)) std::fill_n(total.get(), lanes.stride, T(0));
    for (int64_t e = start; e < end; e += kGathered) {
      const int64_t count = std::min(kGathered, end - e);
      gather(e, count);
      if (p.grad_value)
        add_rows<T>(lanes, {grads, count, p.grad_out.head}, p.value_width, value_tail,
                    weights.get(), {heads_of<T>(p.grad_value, j), e > start});
      key_gradient(j, count, e > start || shared(p.grad_key));
    }
    if (narrow(p)) close(j);
  }

 private:
  static constexpr int64_t kAhead = EdgeRow<T>::kAhead;

  bool shared(const EdgeRows& rows) const { return rows && rows.data == p.grad_value.data; }

  void gather(int64_t e, int64_t count) {
    ask(e, e + count + kAhead);
    for (int64_t k = 0; k < count; ++k) {
      const int64_t target = p.target[e + k], edge = p.by_source[e + k];
      grads[k] = p.grad_out.at<const T>(target);
      queries[k] = p.query.at<const T>(target);
      const T *w = p.weights.at<const T>(edge), *x = p.slopes.at<const T>(edge);
      for (int64_t h = 0; h < p.heads; ++h) {
        weights.get()[k * lanes.stride + h] = w[h];
        slopes.get()[k * lanes.stride + h] = x[h];
      }
    }
  }

  void ask(int64_t from, int64_t until) {
    if (asked < from) asked = from;
    for (until = std::min(until, p.source_start[p.sources]); asked < until; ++asked) {
      const int64_t target = p.target[asked], edge = p.by_source[asked];
      fetch(p.weights.at<const T>(edge), 2 * p.heads * sizeof(T));
      fetch(p.grad_out.at<const T>(target), p.heads * p.grad_out.head * sizeof(T));
      if (!narrow(p)) fetch(p.query.at<const T>(target), p.heads * p.query.head * sizeof(T));
    }
  }

  void key_gradient(int64_t j, int64_t count, bool adds) {
    const T* x = slopes.get();
    const Gathered<T> from{queries, count, p.query.head};
    if (narrow(p)) {
      for (int64_t k = 0; k < count; ++k)
        for (int64_t h = 0; h < p.heads; ++h) total.get()[h] += x[k * lanes.stride + h];
    } else if (!p.grad_key) {
      return;
    } else if (p.act) {
      with_curve(p, [&](auto curve, double c) {
        add_slopes<T, decltype(curve)>(lanes, from, p.width, tail, x, splat<T>(T(c)),
                                       heads_of<const T>(p.key, j),
                                       vectors_of<T>(p),
                                       {heads_of<T>(p.grad_key, j), adds}, nullptr);
      });
    } else {
      add_sides<T>(p, lanes, from, tail, x, {heads_of<T>(p.grad_key, j), adds},
                   heads_of<const T>(p.key, j));
    }
  }

  void close(int64_t j) {
    spread_terms<T>(p, total.get(), p.key, p.key_weight, p.grad_key, j, shared(p.grad_key),
                    sums.key_weight.of(j));
    if (shared(p.grad_query))
      spread_terms<T>(p, terms.gradient(j), p.query, p.query_weight,
                      p.grad_query, j, true, sums.query_weight.of(j));
  }
};

template <class T, class Weight>
void target_backward(const EdgeProblem& p, TargetPass<T>& to, int64_t i) {
  if (!to.open(i, Weight::pad)) return;
  EdgeRow<T>& row = to.row;
  T* sinks = to.sums.sinks.of(i);
  row.over_columns(i, [&](const Column& column, int64_t at, Vec<T> c) {
    const Vec<T> sunk = Weight::slope(column, row.scores.get() + at, row.grads.get() + at,
                                      row.spare.get() + at, c, bool(p.constant));
    for (int64_t l = 0; sinks && l < row.lanes.in_vector() && at + l < p.heads; ++l)
      sinks[at + l] += sunk[l];
  });
  to.close(i);
}

template <class T, class Weight>
void edge_backward(const EdgeProblem& p) {
  Terms<T> terms(p, true);
  AllSums<T> sums(p);
  Team team;
#pragma omp parallel num_threads(edge_threads(p))
  {
    terms.find();
    std::optional<TargetPass<T>> to;
    team.run([&] { to.emplace(p, terms, sums); });
    const int64_t block = node_block(p.targets), sources = node_block(p.sources);
#pragma omp for schedule(dynamic, 1)
    for (int64_t b = 0; b < p.targets; b += block)
      team.run([&] {
        for (int64_t i = b; i < std::min(p.targets, b + block); ++i)
          target_backward<T, Weight>(p, *to, i);
      });
    if (p.grad_key || p.grad_value || p.grad_key_weight) {
      std::optional<SourcePass<T>> from;
      team.run([&] { from.emplace(p, terms, sums); });
#pragma omp for schedule(dynamic, 1)
      for (int64_t b = 0; b < p.sources; b += sources)
        team.run([&] {
          for (int64_t j = b; j < std::min(p.sources, b + sources); ++j) from->run(j);
        });
    }
  }
  team.end();
  sums.add_up(p);
}

}  // namespace ogive::OGIVE_ISA::edge
