// Backward of additive scores: one pass gives all gradients.
//
// A head's spans of keys are dealt to a fixed number of hands. Each hand has its own sums for the
// queries and the vectors, and the hands are added up in order, so no number of threads and no
// batch changes a bit.
#pragma once

#include <algorithm>
#include <vector>

#include "additive_forward.h"
#include "turn.h"

namespace ogive::OGIVE_ISA {

// How the work is cut: units of (batch, shared head, hand), and what each unit sums for itself.
struct AdditiveUnits {
  int64_t spans, hands, group, query_size, unit_size;

  explicit AdditiveUnits(const Problem& p)
      : spans((p.keys + kSpan - 1) / kSpan),
        hands(std::clamp<int64_t>(16 / p.shared, 1, std::max<int64_t>(1, spans))),
        group(p.heads / p.shared),
        query_size(p.queries * p.width),
        unit_size(group * (query_size + p.width)) {}
  int64_t count(const Problem& p) const { return p.batch * p.shared * hands; }
};

template <class T>
struct AdditiveBack {
  AdditiveKeys<T> keys;
  Buffer<T> query, grad_out, grad_tall, scores, grads, features, value_sums;
  T slopes[kSpan], stay[kSpan];
};

template <class T>
void pack_additive_back(const Problem& p, int64_t b, int64_t g, AdditiveKeys<T>& kept) {
  const int64_t head = b * p.shared + g;
  if (kept.head == head) return;
  kept.head = head;
  pack_features<T>(p, b, g, kept.features.need(round_up(p.keys, kSpan) * p.width));
  Watch<T> nobody;
  pack_panels<T>({p.value, b, g, 0, p.keys, p.value_width}, 1,
                 kept.value_panels.need(round_up(p.keys, kPanel<T>) * p.value_width), nobody);
}

// Scores and ∂/∂weights of a tile become weights and ∂/∂scores.
template <class T, class Slope>
void turn_tile(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows, int64_t j0,
               int64_t n, T* scores, T* grads, AdditiveBack<T>& mine) {
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
}

// One block of queries of head h against columns `at` of a span; `sums` are the head's own.
template <class T, class Slope>
void additive_back_tile(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t span, Span at,
                        AdditiveBack<T>& mine, T* sums) {
  const int64_t rows = std::min(kBlock, p.queries - i0);
  const int64_t j0 = span * kSpan + at.low, n = at.high - at.low;
  const int64_t wide = round_up(p.value_width, kPanel<T>);
  T* query = mine.query.need(kBlock * p.width);
  T* grad_out = mine.grad_out.need(kBlock * p.value_width);
  T* grad_tall = mine.grad_tall.need(kBlock * wide);
  T* scores = mine.scores.need(kBlock * kSpan);
  T* grads = mine.grads.need(kBlock * kSpan);
  Watch<T> nobody;
  const Rows grad{p.grad_out, b, h, i0, rows, p.value_width};
  pack_rows<T>({p.query, b, h, i0, rows, p.width}, 1, query, p.width, nobody);
  pack_rows<T>(grad, 1, grad_out, p.value_width, nobody);
  pack_tall<T>(grad, grad_tall, nobody);
  const AdditiveTile<T> tile = {rows,   p.width, at.low, at.high, p.vectors.at<const T>(h, 0),
                                query, mine.keys.features.get() + span * kSpan * p.width};
  additive_scores<T>(p, tile, scores, kSpan);
  against_panels<T>(rows, p.value_width, grad_out,
                    mine.keys.value_panels.get() + j0 * p.value_width, Same({0, n}).spans,
                    grads + at.low, kSpan);
  turn_tile<T, Slope>(p, b, h, i0, rows, j0, n, scores + at.low, grads + at.low, mine);
  add_product<T, kTransposed>(n, Same({0, rows}).spans, scores + at.low, kSpan, grad_tall, rows,
                              wide, mine.value_sums.get() + at.low * wide);
  additive_gradients<T>(p, tile, grads, kSpan,
                        {sums + i0 * p.width, sums + p.queries * p.width, mine.features.get()});
}

// All queries of a group of heads against one span of keys.
template <class T, class Slope>
void additive_back_span(const Problem& p, const AdditiveUnits& cut, int64_t b, int64_t g,
                        int64_t span, AdditiveBack<T>& mine, T* sums) {
  const int64_t j0 = span * kSpan, n = std::min(kSpan, p.keys - j0);
  const int64_t wide = round_up(p.value_width, kPanel<T>);
  pack_additive_back<T>(p, b, g, mine.keys);
  T* features = mine.features.need(kSpan * p.width);
  T* value_sums = mine.value_sums.need(kSpan * wide);
  std::fill(features, features + kSpan * p.width, T(0));
  std::fill(value_sums, value_sums + kSpan * wide, T(0));
  for (int64_t member = 0; member < cut.group; ++member)
    for (int64_t i0 = 0; i0 < p.queries; i0 += kBlock) {
      const int64_t rows = std::min(kBlock, p.queries - i0);
      Span seen = columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
      seen = {std::max(seen.low, j0), std::min(seen.high, j0 + n)};
      if (seen.low >= seen.high) continue;
      additive_back_tile<T, Slope>(p, b, g * cut.group + member, i0, span,
                                   columns_within<T>(seen, span), mine,
                                   sums + member * (cut.query_size + p.width));
    }
  for (int64_t j = 0; j < n; ++j) {
    T* to = p.grad_key.at<T>(b, g, j0 + j);
    for (int64_t d = 0; d < p.width; ++d) to[d * p.grad_key.stride[3]] = features[d * kSpan + j];
    to = p.grad_value.at<T>(b, g, j0 + j);
    for (int64_t k = 0; k < p.value_width; ++k)
      to[k * p.grad_value.stride[3]] = value_sums[j * wide + k];
  }
}

// The hands of one head in order, and over the batch what belongs to a head's vector.
template <class T>
void add_additive_hands(const Problem& p, const AdditiveUnits& cut, int64_t h, const T* all) {
  T* vector = p.grad_vectors.at<T>(h, 0);
  std::fill(vector, vector + p.width, T(0));
  for (int64_t b = 0; b < p.batch; ++b) {
    const T* first = all + (b * p.shared + h / cut.group) * cut.hands * cut.unit_size +
                     h % cut.group * (cut.query_size + p.width);
    for (int64_t i = 0; i < p.queries; ++i) {
      T* to = p.grad_query.at<T>(b, h, i);
      for (int64_t d = 0; d < p.width; ++d) {
        T sum = first[i * p.width + d];
        for (int64_t hand = 1; hand < cut.hands; ++hand)
          sum += first[hand * cut.unit_size + i * p.width + d];
        to[d * p.grad_query.stride[3]] = sum;
      }
    }
    for (int64_t hand = 0; hand < cut.hands; ++hand)
      for (int64_t d = 0; d < p.width; ++d)
        vector[d] += first[hand * cut.unit_size + cut.query_size + d];
  }
}

// Units that add into the same entries of a broadcast bias's gradient go one after another, in
// one thread: `outer` counts what is independent, `inner` what is not.
struct Turns {
  int64_t outer[3], inner[3], units, within;

  Turns(const Problem& p, const AdditiveUnits& cut) {
    const int64_t all[] = {p.batch, p.shared, cut.hands};
    const bool meets[] = {p.grad_bias.stride[0] == 0, p.grad_bias.stride[1] == 0,
                          p.grad_bias.stride[3] == 0};
    for (int axis = 0; axis < 3; ++axis) {
      const bool shared = p.grad_bias && meets[axis];
      outer[axis] = shared ? 1 : all[axis];
      inner[axis] = shared ? all[axis] : 1;
    }
    units = outer[0] * outer[1] * outer[2];
    within = inner[0] * inner[1] * inner[2];
  }
  // Number of the unit (batch, shared head, hand) that comes w-th within outer unit u.
  int64_t at(int64_t u, int64_t w) const {
    const int64_t b = u / outer[2] / outer[1] + w / inner[2] / inner[1];
    const int64_t g = u / outer[2] % outer[1] + w / inner[2] % inner[1];
    const int64_t hand = u % outer[2] + w % inner[2];
    return (b * outer[1] * inner[1] + g) * outer[2] * inner[2] + hand;
  }
};

template <class T, class Slope>
void additive_backward(const Problem& p) {
  const AdditiveUnits cut(p);
  const Turns turns(p, cut);
  Buffer<T> all;
  T* sums = all.need(cut.count(p) * cut.unit_size);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1)
  {
    AdditiveBack<T> mine;
#pragma omp for schedule(dynamic, 1)
    for (int64_t u = 0; u < turns.units; ++u)
      for (int64_t w = 0; w < turns.within; ++w) {
        const int64_t unit = turns.at(u, w), head = unit / cut.hands;
        T* own = sums + unit * cut.unit_size;
        std::fill(own, own + cut.unit_size, T(0));
        for (int64_t span = unit % cut.hands; span < cut.spans; span += cut.hands)
          additive_back_span<T, Slope>(p, cut, head / p.shared, head % p.shared, span, mine, own);
      }
#pragma omp for schedule(static)
    for (int64_t h = 0; h < p.heads; ++h) add_additive_hands<T>(p, cut, h, sums);
  }
}

}  // namespace ogive::OGIVE_ISA
