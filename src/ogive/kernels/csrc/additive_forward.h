// Forward of additive scores: the same stream of tiles as for dot products.
#pragma once

#include <algorithm>

#include "additive.h"
#include "block.h"
#include "dropout.h"
#include "weigh.h"

namespace ogive::OGIVE_ISA {

// Keys of a head, feature by feature: to[span][d][kSpan], zeros after the last key.
template <class T>
void pack_features(const Problem& p, int64_t b, int64_t g, T* to) {
  for (int64_t j = 0; j < round_up(p.keys, kSpan); ++j) {
    T* column = to + j / kSpan * kSpan * p.width + j % kSpan;
    const T* from = j < p.keys ? p.key.at<T>(b, g, j) : nullptr;
    for (int64_t d = 0; d < p.width; ++d)
      column[d * kSpan] = from ? from[d * p.key.stride[3]] : T(0);
  }
}

template <class T>
struct AdditiveKeys {  // what one thread keeps of the head it is working on
  int64_t head = -1;
  Buffer<T> features, value_tall, value_panels;
};

// Columns of span number `span` that lie in [seen.low, seen.high), relative to the span.
template <class T>
Span columns_within(Span seen, int64_t span) {
  const int64_t first = span * kSpan;
  return {std::max<int64_t>(0, seen.low - first),
          round_up(std::min(kSpan, seen.high - first), kPanel<T>)};
}

template <class T>
struct AdditiveScratch {
  AdditiveKeys<T> keys;
  Buffer<T> query, tile, out;
  T top[kBlock], total[kBlock];
};

template <class T>
void pack_additive_keys(const Problem& p, int64_t b, int64_t g, AdditiveKeys<T>& kept) {
  const int64_t head = b * p.shared + g;
  if (kept.head == head) return;
  kept.head = head;
  Watch<T> nobody;
  pack_features<T>(p, b, g, kept.features.need(round_up(p.keys, kSpan) * p.width));
  pack_tall<T>({p.value, b, g, 0, p.keys, p.value_width},
               kept.value_tall.need(p.keys * round_up(p.value_width, kPanel<T>)), nobody);
}

template <class T, class Weigh>
void additive_forward_block(const Problem& p, int64_t b, int64_t h, int64_t i0,
                            AdditiveScratch<T>& mine) {
  const int64_t rows = std::min(kBlock, p.queries - i0);
  const int64_t wide = round_up(p.value_width, kPanel<T>);
  pack_additive_keys<T>(p, b, h / (p.heads / p.shared), mine.keys);
  T* query = mine.query.need(kBlock * p.width);
  T* tile = mine.tile.need(kBlock * kSpan);
  T* out = mine.out.need(kBlock * wide);
  Watch<T> nobody;
  pack_rows<T>({p.query, b, h, i0, rows, p.width}, 1, query, p.width, nobody);
  std::fill(out, out + rows * wide, T(0));
  if constexpr (Weigh::shares) Weigh::start(p, b, h, rows, mine.top, mine.total);

  const Span seen = columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
  for (int64_t span = seen.low / kSpan; span * kSpan < seen.high; ++span) {
    const Span at = columns_within<T>(seen, span);
    const int64_t j0 = span * kSpan + at.low, n = at.high - at.low;
    additive_scores<T>(p, {rows, p.width, at.low, at.high, p.vectors.at<const T>(h, 0), query,
                           mine.keys.features.get() + span * kSpan * p.width},
                       tile, kSpan);
    for (int64_t r = 0; r < rows; ++r) {
      T* scores = tile + r * kSpan + at.low;
      const Row<T> row = query_row<T>(p, b, h, i0 + r, j0, n, scores);
      if (p.cap > 0) row.squash(T(p.cap));
      row.add_bias();
      if constexpr (Weigh::shares)
        Weigh::weigh(row, mine.top[r], mine.total[r], out + r * wide, wide);
      else
        Weigh::weigh(row, *p.constant.at<T>(b, h, i0 + r));
      if (p.dropout > 0) drop_row<T>(p, b, h, i0 + r, j0, n, scores);
    }
    const Same depth({0, std::min(n, p.keys - j0)});
    add_product<T, kRowMajor>(rows, depth.spans, tile + at.low, kSpan,
                              mine.keys.value_tall.get() + j0 * kPanel<T>, p.keys, wide, out);
  }
  for (int64_t r = 0; r < rows; ++r) {
    T factor = 1;
    if constexpr (Weigh::shares)
      factor = Weigh::finish(p, b, h, i0 + r, mine.top[r], mine.total[r]);
    T* to = p.out.at<T>(b, h, i0 + r);
    for (int64_t k = 0; k < p.value_width; ++k)
      to[k * p.out.stride[3]] = out[r * wide + k] * factor;
  }
}

template <class T, class Weigh>
void additive_forward(const Problem& p) {
  const int64_t blocks = (p.queries + kBlock - 1) / kBlock, units = p.batch * p.heads * blocks;
  const int64_t share = share_of(p, units, blocks);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1 && units > 1)
  {
    AdditiveScratch<T> mine;
#pragma omp for schedule(dynamic, share)
    for (int64_t u = 0; u < units; ++u)
      additive_forward_block<T, Weigh>(p, u / blocks / p.heads, u / blocks % p.heads,
                                       u % blocks * kBlock, mine);
  }
}

}  // namespace ogive::OGIVE_ISA
