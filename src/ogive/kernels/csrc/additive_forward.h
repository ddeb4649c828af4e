// Forward of additive scores: tiles of scores as for dot products, but for how a score comes about.
#pragma once

#include <algorithm>

#include "additive_ways.h"
#include "forward.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct AdditiveForward {
  ForwardScratch<T, kTile> tiles;
  AdditiveKeys<T> keys;
  AdditiveQueries<T> queries;
  Watch<T> watch;

  void reserve(const Problem& p) {
    tiles.kept.value_tall.need(p.keys * wide<T>(p.value_width));
    tiles.tile.need(kBlock * kSpan);
    tiles.out.need(kBlock * wide<T>(p.value_width));
    tiles.sight.reserve(p);
    reserve_additive(p, spans_of(p), keys, queries);
  }
};

template <class T>
void pack_additive_keys(const Problem& p, int64_t b, int64_t h, AdditiveForward<T>& mine) {
  const int64_t g = h / (p.heads / p.shared), head = b * p.shared + g;
  if (mine.keys.head != head) {
    mine.keys.head = head;
    pack_features<T>(p, b, g, mine.keys, mine.watch);
    pack_tall<T>({p.value, b, g, 0, p.keys, p.value_width}, mine.tiles.kept.value_tall.get(),
                 mine.watch);
  }
  if (mine.keys.query_head == b * p.heads + h) return;
  mine.keys.query_head = b * p.heads + h;
  prepare_keys<T>(p, h, {0, spans_of(p)}, mine.keys);
}

template <class T, class Weigh>
void additive_forward_block(const Problem& p, int64_t b, int64_t h, int64_t i0,
                            AdditiveForward<T>& mine) {
  const int64_t rows = std::min(kBlock, p.queries - i0), across = wide<T>(p.value_width);
  ForwardScratch<T, kTile>& tiles = mine.tiles;
  pack_additive_keys<T>(p, b, h, mine);
  pack_features<T>(p, b, h, i0, rows, mine.queries, mine.watch);
  T *tile = tiles.tile.get(), *out = tiles.out.get();
  std::fill(out, out + rows * across, T(0));
  if constexpr (Weigh::shares) Weigh::start(p, b, h, rows, tiles.top, tiles.total);

  const Span seen = columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
  for (int64_t j0 = seen.low / kSpan * kSpan; j0 < seen.high; j0 += kSpan) {
    const Place at{b, h, i0, rows, j0, std::min(kSpan, p.keys - j0), true};
    if (!tiles.sight.look(p, at, mine.watch)) continue;
    additive_scores<T>(p, at, tiles.sight, mine.keys, mine.queries, tile);
    weigh_tile<T, Weigh>(p, at, tiles);
    tiles.sight.narrow(rows);
    add_product<T, kRowMajor>(rows, tiles.sight.groups, tile, kSpan,
                              tiles.kept.value_tall.get() + j0 * kPanel<T>, p.keys, p.value_width,
                              out);
  }
  write_sums<T, Weigh>(p, {p.out, b, h, i0, rows, p.value_width}, tiles);
}

template <class T, class Weigh>
void additive_forward(const Problem& p) {
  const int64_t blocks = (p.queries + kBlock - 1) / kBlock, units = p.batch * p.heads * blocks;
  const int64_t share = share_of(p, units, blocks);
  auto all = scratches<AdditiveForward<T>>(p, units);
  deal(all, units, share, [&](int64_t u, AdditiveForward<T>& mine) {
    additive_forward_block<T, Weigh>(p, u / blocks / p.heads, u / blocks % p.heads,
                                     (blocks - 1 - u % blocks) * kBlock, mine);
  });
  report(p, all);
}

}  // namespace ogive::OGIVE_ISA
