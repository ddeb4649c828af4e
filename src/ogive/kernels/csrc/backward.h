// Backward: the scores are computed again, each number is summed in an order that no number of
// threads changes.
//
// One pass over blocks of keys gives all gradients: a head's keys are dealt to a fixed number of
// hands, and what each hand has for the queries is added up in order.
#pragma once

#include <algorithm>
#include <vector>

#include "apart.h"
#include "few_backward.h"
#include "hands.h"
#include "weigh.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct BackwardScratch {
  std::vector<Packed<T>> kept;  // one for each member of a group
  Buffer<T> key, value, key_tall, scores, grads, sums, value_sums;
  Sight<T> sight;
  Watch<T> watch;
  T slopes[kSpan], lengths[kSpan], stay[kSpan], meets[kSpan];

  void reserve(const Problem& p) {
    kept.resize(p.heads / p.shared);
    for (Packed<T>& one : kept) {
      one.panels.need(wide<T>(p.queries) * p.width);
      one.value_panels.need(wide<T>(p.queries) * p.value_width);
      one.tall.need(p.queries * wide<T>(p.width));
      one.value_tall.need(p.queries * wide<T>(p.value_width));
      one.first.need(wide<T>(p.queries));
      one.second.need(wide<T>(p.queries));
      if (p.dropout > 0)
        for (auto& half : one.counters) half.need(wide<T>(p.queries));
    }
    key.need(kBlock * p.width);
    value.need(kBlock * p.value_width);
    key_tall.need(kBlock * wide<T>(p.width));
    scores.need(kBlock * kSpan);
    grads.need(kBlock * kSpan);
    sums.need(kBlock * wide<T>(p.width));
    value_sums.need(kBlock * wide<T>(p.value_width));
    sight.reserve(p);
  }
};

// Queries and their gradients, and what each brings to its slopes: the weight function's constant, or
// lse and delta.
template <class T, class Slope>
void pack_queries(const Problem& p, int64_t b, int64_t h, Packed<T>& kept, Watch<T>& watch) {
  const int64_t head = b * p.heads + h;
  if (kept.head == head) return;
  kept.head = head;
  const Rows query{p.query, b, h, 0, p.queries, p.width};
  const Rows grad{p.grad_out, b, h, 0, p.queries, p.value_width};
  Watch<T> nobody;  // a gradient may be anything
  pack_panels<T>(query, query_factor<T>(p), kept.panels.get(), watch);
  pack_tall<T>(query, kept.tall.get(), watch);
  pack_panels<T>(grad, 1, kept.value_panels.get(), nobody);
  pack_tall<T>(grad, kept.value_tall.get(), nobody);
  if (p.dropout > 0) count_queries(p, b, h, kept.counters[0].get(), kept.counters[1].get());
  T *first = kept.first.get(), *second = kept.second.get();
  for (int64_t i = 0; i < wide<T>(p.queries); ++i) {
    const bool there = i < p.queries;
    first[i] = there ? *(Slope::shares ? p.lse : p.constant).template at<T>(b, h, i) : 0;
    second[i] = there && Slope::shares ? *p.delta.at<T>(b, h, i) : 0;
  }
}

// A tile of the bias's gradient, turned so that rows are written along the keys. Where nothing is
// visible the tile holds zeros.
template <class T>
void add_bias_gradient_of_tile(const Problem& p, const Place& at, const T* grads) {
  constexpr int W = Lanes<T>::count;
  const int64_t columns = std::min(at.columns, p.queries - at.start);
  for (int64_t k = 0; k < columns; k += W)
    for (int64_t r = 0; r < at.rows; r += W) {
      Vec<T> block[W];
#pragma GCC unroll 16
      for (int c = 0; c < W; ++c)
        block[c] = r + c < at.rows ? load<T>(grads + (r + c) * kSpan + k) : Vec<T>{};
      transpose<T>(block);
      for (int64_t c = 0; c < std::min<int64_t>(W, columns - k); ++c) {
        T* to = p.grad_bias.at<T>(at.b, at.h, at.start + k + c, at.first + r);
        if (r + W <= at.rows)
          store<T>(to, p.bias_once ? block[c] : load<T>(to) + block[c]);
        else
          for (int64_t l = 0; r + l < at.rows; ++l)
            to[l] = p.bias_once ? block[c][l] : to[l] + block[c][l];
      }
    }
}

// Scores and ∂/∂weights of a tile become weights and ∂/∂scores; where nothing is visible, zeros.
template <class T, class Slope>
void turn_tile(const Problem& p, const Place& at, const Packed<T>& kept, BackwardScratch<T>& mine) {
  T *scores = mine.scores.get(), *grads = mine.grads.get();
  // A softcap and a distance's root come before the bias: their slopes are not in its gradient.
  const bool tiled = p.grad_bias && p.grad_bias.stride[3] == 1 && !meet_in_bias(p.grad_bias) &&
                     p.cap == 0 && p.apart != kLength;
  const bool meeting = p.grad_bias && p.grad_bias.stride[3] == 0;  // keys in one number
  if (meeting) std::fill(mine.meets, mine.meets + kSpan, T(0));
  for (int64_t r = 0; r < at.rows; ++r) {
    const Span& group = mine.sight.groups[r / kRows];
    const int64_t n = group.high - group.low, start = at.start + group.low;
    T *weights = scores + r * kSpan, *grad = grads + r * kSpan;
    std::fill(grad, grad + group.low, T(0));
    std::fill(grad + group.high, grad + round_up(at.columns, kPanel<T>), T(0));
    if (mine.sight.rows[r].empty()) {
      std::fill(weights + group.low, weights + group.high, T(0));
      std::fill(grad + group.low, grad + group.high, T(0));
      continue;
    }
    const T* stay = nullptr;
    if (p.dropout > 0)
      stay = stay_of_key<T>(p, {kept.counters[0].get() + start, kept.counters[1].get() + start},
                            at.first + r, n, mine.stay);
    if (p.apart == kLength) length_slopes<T>(p, n, weights + group.low, mine.lengths);
    turn_row<T, Slope, true>(mine.sight.row(r, scores), grad + group.low, kept.first.get() + start,
                             kept.second.get() + start, T(p.cap), mine.slopes, stay);
    if (meeting)
      for (int64_t k = mine.sight.rows[r].low; k < mine.sight.rows[r].high; ++k)
        mine.meets[k] += grad[k];
    else if (p.grad_bias && !tiled)
      take_bias_gradient<T>(p, at, at.start, at.first + r, 2, mine.sight.rows[r], grad);
    if (p.cap > 0) unsquash<T>(n, mine.slopes, grad + group.low);
    if (p.apart == kLength) unsquash<T>(n, mine.lengths, grad + group.low);
  }
  if (tiled) add_bias_gradient_of_tile<T>(p, at, grads);
  if (meeting)
    take_bias_gradient<T>(p, at, at.start, 0, 2, {0, std::min(at.columns, p.queries - at.start)},
                          mine.meets);
}

// What queries [i0, i0 + columns) of one head bring to a block of keys and take from it.
template <class T, class Slope>
void meet(const Problem& p, const Place& at, const Packed<T>& kept, BackwardScratch<T>& mine,
          T* totals) {
  if (!mine.sight.look(p, at, mine.watch)) return;
  const int64_t i0 = at.start, columns = std::min(at.columns, p.queries - i0);
  T *scores = mine.scores.get(), *grads = mine.grads.get();
  Span* groups = mine.sight.groups;
  score_panels<T>(p, at.rows, mine.key.get(), kept.panels.get() + i0 * p.width, groups, scores,
                  kSpan);
  against_panels<T>(at.rows, p.value_width, mine.value.get(),
                    kept.value_panels.get() + i0 * p.value_width, groups, grads, kSpan);
  turn_tile<T, Slope>(p, at, kept, mine);
  Span keys[kSpan / 6 + 1];
  mine.sight.across(at.rows, columns, keys);
  mine.sight.narrow(at.rows);
  add_product<T, kRowMajor, kShallow<T>>(at.rows, groups, scores, kSpan,
                                         kept.value_tall.get() + i0 * kPanel<T>, p.queries,
                                         p.value_width, mine.value_sums.get());
  const Points<T> ours{mine.key_tall.get(), at.rows};
  const Points<T> theirs{kept.tall.get() + i0 * kPanel<T>, p.queries};
  const int64_t across = wide<T>(p.width);
  T* sums = totals + i0 * across;
  if (p.apart) {
    add_away<T, kRowMajor>(at.rows, groups, grads, kSpan, theirs, ours, across, mine.sums.get());
    add_away<T, kTransposed>(columns, keys, grads, kSpan, ours, theirs, across, sums);
    return;
  }
  add_product<T, kRowMajor>(at.rows, groups, grads, kSpan, theirs.panels, theirs.tall, p.width,
                            mine.sums.get());
  add_product<T, kTransposed>(columns, keys, grads, kSpan, ours.panels, ours.tall, p.width, sums);
}

// Gradients of a block of keys and values; what the queries get is added to `totals`.
template <class T, class Slope>
void key_block(const Problem& p, int64_t b, int64_t g, int64_t j0, BackwardScratch<T>& mine,
               T* totals) {
  const int64_t group = p.heads / p.shared, rows = std::min(kBlock, p.keys - j0);
  const Totals size = Totals::of(p, T{});
  const Rows key{p.key, b, g, j0, rows, p.width}, value{p.value, b, g, j0, rows, p.value_width};
  pack_rows<T>(key, 1, mine.key.get(), p.width, mine.watch);
  pack_rows<T>(value, 1, mine.value.get(), p.value_width, mine.watch);
  pack_tall<T>(key, mine.key_tall.get(), mine.watch);
  T *sums = mine.sums.get(), *value_sums = mine.value_sums.get();
  std::fill(sums, sums + rows * wide<T>(p.width), T(0));
  std::fill(value_sums, value_sums + rows * wide<T>(p.value_width), T(0));
  const Span seen = columns_of<T>(j0, rows, [&](int64_t j) { return queries_of(p, b, j); });
  for (int64_t member = 0; member < group; ++member) {
    const int64_t h = g * group + member;
    pack_queries<T, Slope>(p, b, h, mine.kept[member], mine.watch);
    for (int64_t i0 = seen.low; i0 < seen.high; i0 += kSpan)
      meet<T, Slope>(p, {b, h, j0, rows, i0, std::min(kSpan, seen.high - i0), false},
                     mine.kept[member], mine, totals + member * size.member);
  }
  write_rows<T>({p.grad_key, b, g, j0, rows, p.width}, sums, wide<T>(p.width), T(p.scale));
  write_rows<T>({p.grad_value, b, g, j0, rows, p.value_width}, value_sums,
                wide<T>(p.value_width));
}

template <class T, class Slope>
void backward(const Problem& p) {
  if (reads_in_place(p)) return few_backward<T, Slope>(p);
  by_hands<T, BackwardScratch<T>>(
      p, (p.keys + kBlock - 1) / kBlock,
      [&](int64_t b, int64_t g, int64_t block, BackwardScratch<T>& mine, T* totals) {
        key_block<T, Slope>(p, b, g, block * kBlock, mine, totals);
      });
}

}  // namespace ogive::OGIVE_ISA
