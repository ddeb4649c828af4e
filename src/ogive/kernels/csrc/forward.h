// Forward: out_i = Σ_j w(s_ij) v_j, block by block.
//
// No (queries × keys) tensor exists: a tile of scores lives in cache, becomes a tile of weights
// and is spent at once.
#pragma once

#include <algorithm>

#include "block.h"
#include "dropout.h"
#include "weigh.h"

namespace ogive::OGIVE_ISA {

template <class T>
void pack_keys(const Problem& p, int64_t b, int64_t g, Packed<T>& kept) {
  const int64_t head = b * p.shared + g;
  if (kept.head == head) return;
  kept.head = head;
  const int64_t wide = round_up(p.value_width, kPanel<T>);
  pack_panels<T>(p.key.at<T>(b, g), p.keys, p.key.stride[2], p.width, p.key.stride[3], 1,
                 kept.panels.need(round_up(p.keys, kPanel<T>) * p.width));
  pack_rows<T>(p.value.at<T>(b, g), p.keys, p.value.stride[2], p.value_width, p.value.stride[3], 1,
               kept.value_rows.need(p.keys * wide), p.keys, wide);
}

template <class T>
struct ForwardScratch {
  Packed<T> kept;
  Buffer<T> query, tile, out;
  T top[kBlock], total[kBlock];
};

template <class T, class Weigh>
void forward_block(const Problem& p, int64_t b, int64_t h, int64_t i0, ForwardScratch<T>& mine) {
  const int64_t g = h / (p.heads / p.shared);
  const int64_t rows = std::min(kBlock, p.queries - i0), tall = round_up(rows, kRows);
  const int64_t wide = round_up(p.value_width, kPanel<T>);
  pack_keys<T>(p, b, g, mine.kept);
  T* query = mine.query.need(kBlock * p.width);
  T* tile = mine.tile.need(kBlock * kSpan);
  T* out = mine.out.need(kBlock * wide);
  pack_rows<T>(p.query.at<T>(b, h, i0), rows, p.query.stride[2], p.width, p.query.stride[3],
               T(p.scale), query, tall, p.width);
  std::fill(out, out + tall * wide, T(0));
  if constexpr (Weigh::shares) Weigh::start(p, b, h, rows, mine.top, mine.total);

  const Span seen =
      columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
  for (int64_t j0 = seen.low; j0 < seen.high; j0 += kSpan) {
    const int64_t n = std::min(kSpan, round_up(seen.high - j0, kPanel<T>));
    score_tile<T>(p, tall, query, mine.kept.panels.get() + j0 * p.width, n, tile);
    for (int64_t r = 0; r < rows; ++r) {
      const Row<T> row = query_row<T>(p, b, h, i0 + r, j0, n, tile + r * kSpan);
      if (p.cap > 0) row.squash(T(p.cap));
      row.add_bias();
      if constexpr (Weigh::shares)
        Weigh::weigh(row, mine.top[r], mine.total[r], out + r * wide, wide);
      else
        Weigh::weigh(row, *p.constant.at<T>(b, h, i0 + r));
      if (p.dropout > 0) drop_row<T>(p, b, h, i0 + r, j0, n, tile + r * kSpan);
    }
    const int64_t depth = std::min(n, p.keys - j0);
    add_product<T>(tall, depth, tile, kSpan, mine.kept.value_rows.get() + j0 * wide, wide, wide,
                   out, wide);
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
void forward(const Problem& p) {
  const int64_t blocks = (p.queries + kBlock - 1) / kBlock, units = p.batch * p.heads * blocks;
  const int64_t share = share_of(p, units, blocks);
#pragma omp parallel num_threads(p.threads) if (p.threads > 1 && units > 1)
  {
    ForwardScratch<T> mine;
#pragma omp for schedule(dynamic, share)
    for (int64_t u = 0; u < units; ++u)
      forward_block<T, Weigh>(p, u / blocks / p.heads, u / blocks % p.heads, u % blocks * kBlock,
                              mine);
  }
}

}  // namespace ogive::OGIVE_ISA
