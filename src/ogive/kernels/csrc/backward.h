// Backward: the scores are computed again, each number is summed in an order that no number of
// threads changes.
//
// One pass over blocks of keys gives all three gradients: a head's keys are dealt to a fixed number
// of hands, and what each hand has for the queries is added up in order. With a bias's gradient
// there is a pass over queries and one over keys. Additive scores have loops of their own.
#pragma once

#include <algorithm>
#include <vector>

#include "block.h"
#include "dropout.h"
#include "turn.h"
#include "weigh.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct BackwardScratch {
  std::vector<Packed<T>> kept;
  Buffer<T> left, left_value, rows, scores, grads, sums, value_sums, first, second;
  T slopes[kSpan], stay[kSpan];
};

template <class T>
void pack_for_queries(const Problem& p, int64_t b, int64_t g, Packed<T>& kept) {
  const int64_t head = b * p.shared + g;
  if (kept.head == head) return;
  kept.head = head;
  const int64_t tall = round_up(p.keys, kPanel<T>), wide = round_up(p.width, kPanel<T>);
  pack_panels<T>(p.key.at<T>(b, g), p.keys, p.key.stride[2], p.width, p.key.stride[3], 1,
                 kept.panels.need(tall * p.width));
  pack_panels<T>(p.value.at<T>(b, g), p.keys, p.value.stride[2], p.value_width, p.value.stride[3],
                 1, kept.value_panels.need(tall * p.value_width));
  pack_rows<T>(p.key.at<T>(b, g), p.keys, p.key.stride[2], p.width, p.key.stride[3], 1,
               kept.rows.need(p.keys * wide), p.keys, wide);
}

template <class T>
void pack_for_keys(const Problem& p, int64_t b, int64_t h, Packed<T>& kept) {
  const int64_t head = b * p.heads + h;
  if (kept.head == head) return;
  kept.head = head;
  const int64_t tall = round_up(p.queries, kPanel<T>);
  const int64_t wide = round_up(p.width, kPanel<T>), wide_value = round_up(p.value_width, kPanel<T>);
  const View &q = p.query, &g = p.grad_out;
  pack_panels<T>(q.at<T>(b, h), p.queries, q.stride[2], p.width, q.stride[3], T(p.scale),
                 kept.panels.need(tall * p.width));
  pack_panels<T>(g.at<T>(b, h), p.queries, g.stride[2], p.value_width, g.stride[3], 1,
                 kept.value_panels.need(tall * p.value_width));
  pack_rows<T>(q.at<T>(b, h), p.queries, q.stride[2], p.width, q.stride[3], T(p.scale),
               kept.rows.need(p.queries * wide), p.queries, wide);
  pack_rows<T>(g.at<T>(b, h), p.queries, g.stride[2], p.value_width, g.stride[3], 1,
               kept.value_rows.need(p.queries * wide_value), p.queries, wide_value);
}

template <class T, class Slope>
void query_block(const Problem& p, int64_t b, int64_t h, int64_t i0, BackwardScratch<T>& mine) {
  const int64_t g = h / (p.heads / p.shared);
  const int64_t rows = std::min(kBlock, p.queries - i0), tall = round_up(rows, kRows);
  const int64_t wide = round_up(p.width, kPanel<T>);
  mine.kept.resize(1);
  Packed<T>& kept = mine.kept[0];
  pack_for_queries<T>(p, b, g, kept);
  T* query = mine.left.need(kBlock * p.width);
  T* grad_out = mine.left_value.need(kBlock * p.value_width);
  T* scores = mine.scores.need(kBlock * kSpan);
  T* grads = mine.grads.need(kBlock * kSpan);
  T* sums = mine.sums.need(kBlock * wide);
  pack_rows<T>(p.query.at<T>(b, h, i0), rows, p.query.stride[2], p.width, p.query.stride[3],
               T(p.scale), query, tall, p.width);
  pack_rows<T>(p.grad_out.at<T>(b, h, i0), rows, p.grad_out.stride[2], p.value_width,
               p.grad_out.stride[3], 1, grad_out, tall, p.value_width);
  std::fill(sums, sums + tall * wide, T(0));
  const Span seen = columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
  for (int64_t j0 = seen.low; j0 < seen.high; j0 += kSpan) {
    const int64_t n = std::min(kSpan, round_up(seen.high - j0, kPanel<T>));
    score_tile<T>(p, tall, query, kept.panels.get() + j0 * p.width, n, scores);
    against_panels<T>(tall, p.value_width, grad_out, p.value_width,
                      kept.value_panels.get() + j0 * p.value_width, n, grads, kSpan);
    for (int64_t r = 0; r < rows; ++r) {
      const Row<T> row = query_row<T>(p, b, h, i0 + r, j0, n, scores + r * kSpan);
      const T zero = 0;
      const T* first = (Slope::shares ? p.lse : p.constant).template at<T>(b, h, i0 + r);
      const T* second = Slope::shares ? p.delta.at<T>(b, h, i0 + r) : &zero;
      const T* stay = nullptr;
      if (p.dropout > 0) stay = stay_of_query<T>(p, b, h, i0 + r, j0, n, mine.stay);
      T* grad = grads + r * kSpan;
      turn_row<T, Slope, false>(row, grad, first, second, T(p.cap), mine.slopes, stay);
      if (p.grad_bias) add_bias_gradient<T>(p, b, h, i0 + r, j0, n, grad);
      if (p.cap > 0) unsquash<T>(n, mine.slopes, grad);
    }
    const int64_t depth = std::min(n, p.keys - j0);
    add_product<T>(tall, depth, grads, kSpan, kept.rows.get() + j0 * wide, wide, wide, sums, wide);
  }
  for (int64_t r = 0; r < rows; ++r) {
    T* to = p.grad_query.at<T>(b, h, i0 + r);
    for (int64_t k = 0; k < p.width; ++k)
      to[k * p.grad_query.stride[3]] = sums[r * wide + k] * T(p.scale);
  }
}

// Rows that a block may write of one head's queries.
template <class T>
int64_t tall_queries(const Problem& p) {
  return round_up(p.queries, kPanel<T>);
}

// Gradients of a block of keys and values; those of queries are added to `totals`, unless null:
// (member of the group, query, width rounded up to panels).
template <class T, class Slope>
void key_block(const Problem& p, int64_t b, int64_t g, int64_t j0, BackwardScratch<T>& mine,
               T* totals) {
  const int64_t group = p.heads / p.shared;
  const int64_t rows = std::min(kBlock, p.keys - j0), tall = round_up(rows, kRows);
  const int64_t wide = round_up(p.width, kPanel<T>), wide_value = round_up(p.value_width, kPanel<T>);
  mine.kept.resize(group);
  T* key = mine.left.need(kBlock * p.width);
  T* value = mine.left_value.need(kBlock * p.value_width);
  T* key_rows = totals ? mine.rows.need(kBlock * wide) : nullptr;
  T* scores = mine.scores.need(kBlock * kSpan);
  T* grads = mine.grads.need(kBlock * kSpan);
  T* sums = mine.sums.need(kBlock * wide);
  T* value_sums = mine.value_sums.need(kBlock * wide_value);
  T* first = mine.first.need(round_up(p.queries, kSpan) + kSpan);
  T* second = mine.second.need(round_up(p.queries, kSpan) + kSpan);
  pack_rows<T>(p.key.at<T>(b, g, j0), rows, p.key.stride[2], p.width, p.key.stride[3], 1, key, tall,
               p.width);
  pack_rows<T>(p.value.at<T>(b, g, j0), rows, p.value.stride[2], p.value_width, p.value.stride[3],
               1, value, tall, p.value_width);
  if (totals)
    pack_rows<T>(p.key.at<T>(b, g, j0), rows, p.key.stride[2], p.width, p.key.stride[3], 1,
                 key_rows, rows, wide);
  std::fill(sums, sums + tall * wide, T(0));
  std::fill(value_sums, value_sums + tall * wide_value, T(0));
  const Span seen = columns_of<T>(j0, rows, [&](int64_t j) { return queries_of(p, b, j); });
  for (int64_t member = 0; member < group; ++member) {
    const int64_t h = g * group + member;
    Packed<T>& kept = mine.kept[member];
    pack_for_keys<T>(p, b, h, kept);
    for (int64_t i = 0; i < round_up(p.queries, kSpan) + kSpan; ++i) {
      const bool there = i < p.queries;
      first[i] = there ? *(Slope::shares ? p.lse : p.constant).template at<T>(b, h, i) : 0;
      second[i] = there && Slope::shares ? *p.delta.at<T>(b, h, i) : 0;
    }
    for (int64_t i0 = seen.low; i0 < seen.high; i0 += kSpan) {
      const int64_t n = std::min(kSpan, round_up(seen.high - i0, kPanel<T>));
      score_tile<T>(p, tall, key, kept.panels.get() + i0 * p.width, n, scores);
      against_panels<T>(tall, p.value_width, value, p.value_width,
                        kept.value_panels.get() + i0 * p.value_width, n, grads, kSpan);
      for (int64_t r = 0; r < rows; ++r) {
        const T* stay = nullptr;
        if (p.dropout > 0) stay = stay_of_key<T>(p, b, h, j0 + r, i0, n, mine.stay);
        T* grad = grads + r * kSpan;
        turn_row<T, Slope, true>(key_row<T>(p, b, h, j0 + r, i0, n, scores + r * kSpan), grad,
                                 first + i0, second + i0, T(p.cap), mine.slopes, stay);
        if (p.cap > 0) unsquash<T>(n, mine.slopes, grad);
      }
      const int64_t depth = std::min(n, p.queries - i0);
      add_product<T>(tall, depth, scores, kSpan, kept.value_rows.get() + i0 * wide_value,
                     wide_value, wide_value, value_sums, wide_value);
      add_product<T>(tall, depth, grads, kSpan, kept.rows.get() + i0 * wide, wide, wide, sums, wide);
      if (totals)
        add_transposed_product<T>(n, rows, grads, kSpan, key_rows, wide, wide,
                                  totals + (member * tall_queries<T>(p) + i0) * wide, wide);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    T* to = p.grad_key.at<T>(b, g, j0 + r);
    for (int64_t k = 0; k < p.width; ++k) to[k * p.grad_key.stride[3]] = sums[r * wide + k];
    to = p.grad_value.at<T>(b, g, j0 + r);
    for (int64_t k = 0; k < p.value_width; ++k)
      to[k * p.grad_value.stride[3]] = value_sums[r * wide_value + k];
  }
}

// Queries first, keys after: each pass computes the scores again.
template <class T, class Slope>
void backward_twice(const Problem& p) {
  const int64_t blocks = (p.queries + kBlock - 1) / kBlock;
  const int64_t key_blocks = (p.keys + kBlock - 1) / kBlock;
  const int64_t key_units = p.batch * p.shared * key_blocks;
  // Blocks that add into the same entries of a broadcast bias's gradient go one after another,
  // in one thread: outer counts what is independent, inner what is not.
  const int64_t all[] = {p.batch, p.heads, blocks};
  int64_t outer[3], inner[3];
  for (int axis = 0; axis < 3; ++axis) {
    const bool shared = p.grad_bias && p.grad_bias.stride[axis] == 0;
    outer[axis] = shared ? 1 : all[axis];
    inner[axis] = shared ? all[axis] : 1;
  }
  const int64_t units = outer[0] * outer[1] * outer[2], within = inner[0] * inner[1] * inner[2];
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    BackwardScratch<T> mine;
#pragma omp for schedule(dynamic, 1)
    for (int64_t u = 0; u < units; ++u)
      for (int64_t w = 0; w < within; ++w) {
        const int64_t b = u / outer[2] / outer[1] + w / inner[2] / inner[1];
        const int64_t h = u / outer[2] % outer[1] + w / inner[2] % inner[1];
        query_block<T, Slope>(p, b, h, (u % outer[2] + w % inner[2]) * kBlock, mine);
      }
    mine.kept.clear();
#pragma omp for schedule(dynamic, 1)
    for (int64_t u = 0; u < key_units; ++u)
      key_block<T, Slope>(p, u / key_blocks / p.shared, u / key_blocks % p.shared,
                          u % key_blocks * kBlock, mine, nullptr);
  }
}

// Among how many hands the blocks of one head's keys are dealt: enough that few heads keep a
// machine busy. It depends on no batch and no number of threads, so neither changes the sums.
inline int64_t hands_of(const Problem& p, int64_t key_blocks) {
  constexpr int64_t busy = 16;
  return std::clamp<int64_t>(busy / p.shared, 1, std::max<int64_t>(1, key_blocks));
}

template <class T>
void add_hands(const Problem& p, int64_t b, int64_t h, int64_t hands, const T* totals) {
  const int64_t wide = round_up(p.width, kPanel<T>), group = p.heads / p.shared;
  const int64_t size = group * tall_queries<T>(p) * wide;
  const T* first = totals + (b * p.shared + h / group) * hands * size +
                   h % group * tall_queries<T>(p) * wide;
  for (int64_t i = 0; i < p.queries; ++i) {
    T* to = p.grad_query.at<T>(b, h, i);
    for (int64_t k = 0; k < p.width; ++k) {
      T sum = first[i * wide + k];
      for (int64_t hand = 1; hand < hands; ++hand) sum += first[hand * size + i * wide + k];
      to[k * p.grad_query.stride[3]] = sum * T(p.scale);
    }
  }
}

template <class T, class Slope>
void backward_once(const Problem& p) {
  const int64_t key_blocks = (p.keys + kBlock - 1) / kBlock, hands = hands_of(p, key_blocks);
  const int64_t size =
      p.heads / p.shared * tall_queries<T>(p) * round_up(p.width, kPanel<T>);
  const int64_t units = p.batch * p.shared * hands, heads = p.batch * p.heads;
  Buffer<T> all;
  T* totals = all.need(units * size);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    BackwardScratch<T> mine;
#pragma omp for schedule(dynamic, 1)
    for (int64_t u = 0; u < units; ++u) {
      std::fill(totals + u * size, totals + (u + 1) * size, T(0));
      for (int64_t block = u % hands; block < key_blocks; block += hands)
        key_block<T, Slope>(p, u / hands / p.shared, u / hands % p.shared, block * kBlock, mine,
                            totals + u * size);
    }
#pragma omp for schedule(static)
    for (int64_t u = 0; u < heads; ++u)
      add_hands<T>(p, u / p.heads, u % p.heads, hands, totals);
  }
}

template <class T, class Slope>
void backward(const Problem& p) {
  if (p.grad_bias)
    backward_twice<T, Slope>(p);
  else
    backward_once<T, Slope>(p);
}

}  // namespace ogive::OGIVE_ISA
