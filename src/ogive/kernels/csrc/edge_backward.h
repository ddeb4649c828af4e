// Backward: a pass over targets gives what queries, biases and vectors get and leaves each edge's
// weight and score gradient; a pass over sources gathers what keys and values get. Every sum is in
// one thread and in one order.
#pragma once

#include <vector>

#include "edge_forward.h"

namespace ogive::OGIVE_ISA::edge {

// Sums over targets are made in blocks and added in order; how many follows from the graph alone.
inline int64_t target_block(const EdgeProblem& p) {
  return std::max<int64_t>(16, (p.targets + 255) / 256);
}

// What nodes give to the gradient of their neighbour `own`: themselves for products, the way to them
// for distances.
template <class T>
void add_sides(const EdgeProblem& p, const T* const* rows, int64_t n, int64_t from,
               const Tail<T>& tail, const T* w, T* to, const T* own) {
  if (p.apart)
    add_rows<T, true>(rows, n, from, p.width, tail, w, to, own);
  else
    add_rows<T>(rows, n, from, p.width, tail, w, to);
}

// What a target's backward pass does whatever the weight function.
template <class T>
struct TargetPass {
  const EdgeProblem& p;
  EdgeRow<T> row;

  explicit TargetPass(const EdgeProblem& problem) : p(problem), row(problem) {}

  // Scores and gradients of weights; false where the target has no edges.
  __attribute__((noinline)) bool open(int64_t i, T pad) {
    clear<T>(p.grad_query, i, p.heads, p.width);
    if (!row.open(i)) return false;
    row.grads.need(p.heads * row.ld);
    row.spare.need(row.ld);
    row.score(i, narrow(p) || p.apart == kLength, pad);
    weight_gradients(i);
    return true;
  }

  // Keeps head h's weights and what its scores' gradients come to.
  __attribute__((noinline)) void keep_head(int64_t i, int64_t h, T* vector_sums) {
    T *s = row.of(row.scores, h), *g = row.of(row.grads, h);
    row.hide(h, s);
    row.hide(h, g);
    row.drop(h, s);
    keep(p.weights, h, s);
    if (p.grad_bias) keep(p.grad_bias, h, g);
    score_gradients(i, h, g, vector_sums);
    keep(p.slopes, h, g);
  }

  __attribute__((noinline)) void query_gradient(int64_t i, T* vector_sums) {
    if (narrow(p)) return;
    if (p.act)
      with_curve(p, [&](auto curve, double c) {
        curve_gradient<decltype(curve)>(i, T(c), vector_sums);
      });
    else
      row.over(p.key, [&](int64_t e, int64_t count) {
        for (int64_t h = 0; h < p.heads; ++h)
          add_sides<T>(p, row.gathered, count, h * p.key.head, row.tail, row.of(row.grads, h) + e,
                       p.grad_query.at<T>(i, h), p.query.at<const T>(i, h));
      });
  }

 private:
  template <class Curve>
  __attribute__((noinline)) void curve_gradient(int64_t i, T c, T* vector_sums) {
    row.over(p.key, [&](int64_t e, int64_t count) {
      for (int64_t h = 0; h < p.heads; ++h)
        add_slopes<T, Curve>(row.gathered, count, h * p.key.head, p.width, row.tail,
                             p.query.at<const T>(i, h), p.vectors.at<const T>(h),
                             row.of(row.grads, h) + e, splat<T>(c), p.grad_query.at<T>(i, h),
                             vector_sums ? vector_sums + h * p.width : nullptr);
    });
  }

  void weight_gradients(int64_t i) {
    row.over(p.value, [&](int64_t e, int64_t count) {
      for (int64_t h = 0; h < p.heads; ++h) {
        const T* grad = p.grad_out.at<const T>(i, h);
        T* g = row.of(row.grads, h) + e;
        for (int64_t k = 0; k < count; ++k)
          g[k] = product<T>(grad, row.gathered[k] + h * p.value.head, p.value_width,
                            row.value_tail);
      }
    });
    for (int64_t h = 0; h < p.heads; ++h) {
      T* g = row.of(row.grads, h);
      std::fill(g + row.n, g + row.ld, T(0));
      row.drop(h, g);
    }
  }

  // From gradients of scores to those of the products or sums before cap, scale and vectors.
  void score_gradients(int64_t i, int64_t h, T* g, T* vector_sums) {
    if (p.cap) {
      const T over = T(1) / T(p.cap);
      const bool bent = narrow(p);
      const T* raw = row.of(row.raw, h);
      T* before = row.spare.get();
      if (bent) bent_scores(h, raw, before);
      for (int64_t k = 0; k < row.ld; k += Lanes<T>::count) {
        const Vec<T> s = load<T>((bent ? before : raw) + k);
        store<T>(g + k, load<T>(g + k) * tanh_slope<T>(s * over));
      }
    }
    if (narrow(p)) {
      narrow_gradients(i, h, g, vector_sums);
    } else if (!p.act) {
      if (p.apart == kLength) through_length(g, row.of(row.raw, h));
      for (int64_t k = 0; k < row.ld; k += Lanes<T>::count)
        store<T>(g + k, load<T>(g + k) * T(p.scale));
    }
  }

  // 1/d, and nothing where there is no distance.
  void through_length(T* g, const T* raw) {
    for (int64_t k = 0; k < row.ld; k += Lanes<T>::count) {
      const Vec<T> s = load<T>(raw + k);
      store<T>(g + k, s == T(0) ? Vec<T>{} : load<T>(g + k) * (T(-p.scale) / s));
    }
  }

  void bent_scores(int64_t h, const T* raw, T* to) {
    const T v = *p.vectors.at<const T>(h);
    with_curve(p, [&](auto curve, double c) {
      for (int64_t k = 0; k < row.ld; k += Lanes<T>::count)
        store<T>(to + k, v * decltype(curve)::template value<T>(load<T>(raw + k), splat<T>(T(c))));
    });
  }

  void narrow_gradients(int64_t i, int64_t h, T* g, T* vector_sums) {
    const T* raw = row.of(row.raw, h);
    const T v = *p.vectors.at<const T>(h);
    T total = 0, heights = 0;
    with_curve(p, [&](auto curve, double c) {
      for (int64_t k = 0; k < row.ld; k += Lanes<T>::count) {
        const Pair<T> one = decltype(curve)::template both<T>(load<T>(raw + k), splat<T>(T(c)));
        const Vec<T> grad = load<T>(g + k);
        store<T>(row.spare.get() + k, grad * one.value);
        store<T>(g + k, v * grad * one.slope);
      }
    });
    for (int64_t e = 0; e < row.n; ++e) total += g[e], heights += row.spare.get()[e];
    *p.grad_query.at<T>(i, h) = total;
    if (vector_sums) vector_sums[h] += heights;
  }

  void keep(const EdgeRows& rows, int64_t h, const T* values) {
    for (int64_t e = 0; e < row.n; ++e) *rows.at<T>(row.first + e, h) = values[e];
  }
};

template <class T>
struct SourcePass {
  const EdgeProblem& p;
  const Tail<T> tail, value_tail;
  Buffer<T> weights, slopes;
  const T *queries[kGathered], *grads[kGathered];

  explicit SourcePass(const EdgeProblem& problem)
      : p(problem), tail(problem.width), value_tail(problem.value_width) {
    weights.need(p.heads * kGathered);
    slopes.need(p.heads * kGathered);
  }

  __attribute__((noinline)) void run(int64_t j) {
    clear<T>(p.grad_key, j, p.heads, p.width);
    clear<T>(p.grad_value, j, p.heads, p.value_width);
    for (int64_t e = p.source_start[j]; e < p.source_start[j + 1]; e += kGathered) {
      const int64_t count = std::min(kGathered, p.source_start[j + 1] - e);
      gather(e, count);
      for (int64_t h = 0; h < p.heads; ++h) {
        add_rows<T>(grads, count, h * p.grad_out.head, p.value_width, value_tail,
                    weights.get() + h * kGathered, p.grad_value.at<T>(j, h));
        key_gradient(j, h, count);
      }
    }
  }

 private:
  void gather(int64_t e, int64_t count) {
    for (int64_t k = 0; k < count; ++k) {
      const int64_t target = p.target[e + k], edge = p.by_source[e + k];
      grads[k] = p.grad_out.at<const T>(target);
      queries[k] = p.query.at<const T>(target);
      fetch(grads[k], p.heads * p.grad_out.head * sizeof(T));
      if (!narrow(p)) fetch(queries[k], p.heads * p.query.head * sizeof(T));
      for (int64_t h = 0; h < p.heads; ++h) {
        weights.get()[h * kGathered + k] = *p.weights.at<const T>(edge, h);
        slopes.get()[h * kGathered + k] = *p.slopes.at<const T>(edge, h);
      }
    }
  }

  void key_gradient(int64_t j, int64_t h, int64_t count) {
    const T* x = slopes.get() + h * kGathered;
    T* to = p.grad_key.at<T>(j, h);
    if (narrow(p)) {
      T total = 0;
      for (int64_t k = 0; k < count; ++k) total += x[k];
      *to += total;
    } else if (p.act) {
      with_curve(p, [&](auto curve, double c) {
        add_slopes<T, decltype(curve)>(queries, count, h * p.query.head, p.width, tail,
                                       p.key.at<const T>(j, h), p.vectors.at<const T>(h), x,
                                       splat<T>(T(c)), to, nullptr);
      });
    } else {
      add_sides<T>(p, queries, count, h * p.query.head, tail, x, to, p.key.at<const T>(j, h));
    }
  }
};

template <class T>
void add_blocks(const std::vector<T>& sums, int64_t blocks, int64_t size, T* to) {
  std::fill_n(to, size, T(0));
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t k = 0; k < size; ++k) to[k] += sums[block * size + k];
}

template <class T, class Weight>
void edge_backward(const EdgeProblem& p) {
  const int64_t block = target_block(p), blocks = (p.targets + block - 1) / block;
  const int64_t size = p.heads * p.width;
  std::vector<T> vectors(p.grad_vectors ? blocks * size : 0);
  std::vector<T> sinks(p.grad_constant ? blocks * p.heads : 0);
#pragma omp parallel num_threads(edge_threads(p))
  {
    TargetPass<T> to(p);
#pragma omp for schedule(dynamic, 1)
    for (int64_t b = 0; b < blocks; ++b) {
      T* vector_sums = p.grad_vectors ? vectors.data() + b * size : nullptr;
      for (int64_t i = b * block; i < std::min(p.targets, (b + 1) * block); ++i) {
        if (!to.open(i, Weight::pad)) continue;
        EdgeRow<T>& row = to.row;
        for (int64_t h = 0; h < p.heads; ++h) {
          const T sunk = Weight::slope(row.of(row.scores, h), row.of(row.grads, h),
                                       row.spare.get(), row.n, constant_of<T>(p, i, h),
                                       bool(p.constant));
          if (p.grad_constant) sinks[b * p.heads + h] += sunk;
          to.keep_head(i, h, vector_sums);
        }
        to.query_gradient(i, vector_sums);
      }
    }
    SourcePass<T> from(p);
#pragma omp for schedule(dynamic, 16)
    for (int64_t j = 0; j < p.sources; ++j) from.run(j);
  }
  if (p.grad_vectors) add_blocks(vectors, blocks, size, p.grad_vectors.at<T>(0));
  if (p.grad_constant) add_blocks(sinks, blocks, p.heads, p.grad_constant.at<T>(0));
}

}  // namespace ogive::OGIVE_ISA::edge
