// Backward of additive scores: one pass gives all gradients.
//
// A head's spans of keys are dealt to a fixed number of hands. Each hand has its own sums for the
// queries and the vectors, and the hands are added up in order, so no number of threads and no
// batch changes a bit.
#pragma once

#include <algorithm>

#include "additive_forward.h"
#include "backward.h"

namespace ogive::OGIVE_ISA {

// What a unit (batch, key head, hand) sums for itself: queries and a vector for each head of the
// group, with room for a whole vector after the last number.
struct AdditiveTotals {
  int64_t queries, member, unit;

  template <class T>
  static AdditiveTotals of(const Problem& p, T) {
    const int64_t queries = p.queries * p.width, member = queries + p.width;
    return {queries, member, p.heads / p.shared * member + kPanel<T>};
  }
};

template <class T>
struct AdditiveBack {
  AdditiveKeys<T> keys;
  AdditiveQueries<T> queries;
  Buffer<T> value_panels, grad_out, grad_tall, scores, grads, features, value_sums, row;
  Sight<T> sight;
  Watch<T> watch;
  T slopes[kSpan], stay[kSpan];

  void reserve(const Problem& p) {
    value_panels.need(wide<T>(p.keys) * p.value_width);
    grad_out.need(kBlock * p.value_width);
    grad_tall.need(kBlock * wide<T>(p.value_width));
    scores.need(kBlock * kSpan);
    grads.need(kBlock * kSpan);
    features.need(kSpan * p.width);
    value_sums.need(kSpan * wide<T>(p.value_width));
    row.need(wide<T>(p.width));
    sight.reserve(p);
    reserve_additive(p, 1, keys, queries);
  }
};

// One block of queries against one span of keys; `sums` are the head's own.
template <class T, class Slope>
void additive_back_tile(const Problem& p, const Place& at, AdditiveBack<T>& mine, T* sums) {
  if (!mine.sight.look(p, at, mine.watch)) return;
  T *scores = mine.scores.get(), *grads = mine.grads.get();
  Watch<T> nobody;  // a gradient may be anything
  const Rows grad{p.grad_out, at.b, at.h, at.first, at.rows, p.value_width};
  pack_features<T>(p, at.b, at.h, at.first, at.rows, mine.queries, mine.watch);
  pack_rows<T>(grad, 1, mine.grad_out.get(), p.value_width, nobody);
  pack_tall<T>(grad, mine.grad_tall.get(), nobody);
  additive_scores<T>(p, at, mine.sight, mine.keys, mine.queries, scores);
  against_panels<T>(at.rows, p.value_width, mine.grad_out.get(),
                    mine.value_panels.get() + at.start * p.value_width, mine.sight.groups, grads,
                    kSpan);
  turn_queries<T, Slope>(p, at, mine, scores, grads);
  Span keys[kSpan / 6 + 1];
  mine.sight.across(at.rows, at.columns, keys);
  add_product<T, kTransposed, kShallow<T>>(at.columns, keys, scores, kSpan, mine.grad_tall.get(),
                                           at.rows, p.value_width, mine.value_sums.get());
  additive_gradients<T>(p, at, mine.sight, mine.keys, mine.queries, grads,
                        {sums + at.first * p.width, sums + p.queries * p.width,
                         mine.features.get()});
}

template <class T>
void write_additive_span(const Problem& p, int64_t b, int64_t g, int64_t j0, int64_t count,
                         AdditiveBack<T>& mine) {
  T* row = mine.row.get();
  for (int64_t j = 0; j < count; ++j) {
    for (int64_t d = 0; d < p.width; ++d) row[d] = mine.features.get()[d * kSpan + j];
    write_rows<T>({p.grad_key, b, g, j0 + j, 1, p.width}, row, p.width);
  }
  write_rows<T>({p.grad_value, b, g, j0, count, p.value_width}, mine.value_sums.get(),
                wide<T>(p.value_width));
}

// All queries of a group of heads against one span of keys.
template <class T, class Slope>
void additive_back_span(const Problem& p, int64_t b, int64_t g, int64_t j0, AdditiveBack<T>& mine,
                        T* sums) {
  const int64_t count = std::min(kSpan, p.keys - j0), head = b * p.shared + g;
  const int64_t group = p.heads / p.shared;
  if (mine.keys.head != head) {
    mine.keys.head = head;
    pack_features<T>(p, b, g, mine.keys, mine.watch);
    pack_panels<T>({p.value, b, g, 0, p.keys, p.value_width}, 1, mine.value_panels.get(),
                   mine.watch);
  }
  T *features = mine.features.get(), *value_sums = mine.value_sums.get();
  std::fill(features, features + kSpan * p.width, T(0));
  std::fill(value_sums, value_sums + kSpan * wide<T>(p.value_width), T(0));
  for (int64_t member = 0; member < group; ++member) {
    const int64_t h = g * group + member, span = j0 / kSpan;
    prepare_keys<T>(p, h, {span, span + 1}, mine.keys);
    for (int64_t i0 = 0; i0 < p.queries; i0 += kBlock)
      additive_back_tile<T, Slope>(
          p, {b, h, i0, std::min(kBlock, p.queries - i0), j0, count, true}, mine,
          sums + member * AdditiveTotals::of(p, T{}).member);
  }
  write_additive_span<T>(p, b, g, j0, count, mine);
}

// The hands of one head in order, and over the batch what belongs to a head's vector.
template <class T>
void add_additive_hands(const Problem& p, int64_t h, int64_t hands, T* totals) {
  const int64_t group = p.heads / p.shared;
  const AdditiveTotals size = AdditiveTotals::of(p, T{});
  T* vector = p.grad_vectors.at<T>(h, 0);
  std::fill(vector, vector + p.width, T(0));
  for (int64_t b = 0; b < p.batch; ++b) {
    T* first = totals + (b * p.shared + h / group) * hands * size.unit + h % group * size.member;
    for (int64_t hand = 1; hand < hands; ++hand)
      for (int64_t k = 0; k < size.member; ++k) first[k] += first[hand * size.unit + k];
    write_rows<T>({p.grad_query, b, h, 0, p.queries, p.width}, first, p.width);
    for (int64_t d = 0; d < p.width; ++d) vector[d] += first[size.queries + d];
  }
}

template <class T, class Slope>
void additive_backward(const Problem& p) {
  const int64_t hands = hands_of(p, spans_of(p)), size = AdditiveTotals::of(p, T{}).unit;
  const Shares shares(p, hands);
  Buffer<T> buffer;
  T* totals = buffer.need(p.batch * p.shared * hands * size);
  auto all = scratches<AdditiveBack<T>>(p, std::max(shares.apart(), p.heads));
  deal(all, shares.apart(), 1, [&](int64_t u, AdditiveBack<T>& mine) {
    shares.each(u, [&](int64_t b, int64_t g, int64_t hand) {
      T* own = totals + ((b * p.shared + g) * hands + hand) * size;
      std::fill(own, own + size, T(0));
      for (int64_t span = hand; span < spans_of(p); span += hands)
        additive_back_span<T, Slope>(p, b, g, span * kSpan, mine, own);
    });
  });
  deal(all, p.heads, 1, [&](int64_t h, AdditiveBack<T>&) {
    add_additive_hands<T>(p, h, hands, totals);
  });
  report(p, all);
}

}  // namespace ogive::OGIVE_ISA
