// Forward: out_i = Σ_j w(s_ij) v_j, block by block.
//
// No (queries × keys) tensor exists: a tile of scores lives in cache, becomes a tile of weights
// and is spent at once.
#pragma once

#include <algorithm>

#include "apart.h"
#include "block.h"
#include "dropout.h"
#include "few.h"
#include "weigh.h"

namespace ogive::OGIVE_ISA {

// A row of a tile is looked at as a whole: long rows, and few, cost less than short ones.
constexpr TileSize kLong{24, 256};

template <class T, TileSize Tile = kLong>
struct ForwardScratch {
  static constexpr TileSize size = Tile;
  Packed<T> kept;
  Buffer<T> query, tile, out;
  Sight<T, Tile> sight;
  Watch<T> watch;
  T top[Tile.rows], total[Tile.rows], now[Tile.rows];

  void reserve_panels(const Problem& p) {
    kept.panels.need(wide<T>(p.keys) * p.width);
    kept.value_tall.need(p.keys * wide<T>(p.value_width));
  }
  void reserve(const Problem& p) {
    if (!reads_in_place(p)) reserve_panels(p);
    query.need(Tile.rows * p.width);
    tile.need(Tile.rows * Tile.columns);
    out.need(Tile.rows * wide<T>(p.value_width));
    sight.reserve(p);
  }
};

template <class T>
void pack_keys(const Problem& p, int64_t b, int64_t g, ForwardScratch<T>& mine) {
  const int64_t head = b * p.shared + g;
  if (mine.kept.head == head) return;
  mine.kept.head = head;
  pack_panels<T>({p.key, b, g, 0, p.keys, p.width}, 1, mine.kept.panels.get(), mine.watch);
  pack_tall<T>({p.value, b, g, 0, p.keys, p.value_width}, mine.kept.value_tall.get(), mine.watch);
}

// The scores of a tile become its weights.
template <class T, class Weigh, TileSize Tile>
void weigh_tile(const Problem& p, const Place& at, ForwardScratch<T, Tile>& mine) {
  T *tile = mine.tile.get(), *out = mine.out.get();
  const int64_t across = wide<T>(p.value_width);
  const auto each = [&](auto with) {
    for (int64_t r = 0; r < at.rows; ++r) {
      const Row<T> row = mine.sight.row(r, tile);
      if (!row.empty()) with(r, row);
    }
  };
  each([&](int64_t r, const Row<T>& row) {
    if (p.cap > 0) row.squash(T(p.cap));
    row.add_bias();
    if constexpr (Weigh::shares)
      mine.now[r] = Weigh::peak(row, mine.top[r]);
    else
      Weigh::weigh(row, *p.constant.at<T>(at.b, at.h, at.first + r));
  });
  if constexpr (Weigh::shares)
    each([&](int64_t r, const Row<T>& row) {
      Weigh::spend(row, mine.now[r], mine.top[r], mine.total[r], out + r * across, across);
    });
  for (int64_t r = 0; r < at.rows; ++r) {
    const Span& group = mine.sight.groups[r / kRows];
    T* row = tile + r * Tile.columns + group.low;
    if (mine.sight.rows[r].empty())
      std::fill(row, row + (group.high - group.low), T(0));
    else if (p.dropout > 0)
      drop_row<T>(p, at.b, at.h, at.first + r, at.start + group.low, group.high - group.low, row);
  }
}

// What a block of queries has summed becomes its rows of the output.
template <class T, class Weigh, TileSize Tile>
void write_sums(const Problem& p, const Rows& into, const ForwardScratch<T, Tile>& mine) {
  write_rows<T>(into, mine.out.get(), wide<T>(p.value_width), [&](int64_t r) {
    if constexpr (Weigh::shares)
      return Weigh::finish(p, into.b, into.h, into.first + r, mine.top[r], mine.total[r]);
    else
      return T(1);
  });
}

template <class T, class Weigh>
void forward_block(const Problem& p, int64_t b, int64_t h, int64_t i0, ForwardScratch<T>& mine) {
  const int64_t rows = std::min(kLong.rows, p.queries - i0), across = wide<T>(p.value_width);
  const int64_t g = h / (p.heads / p.shared);
  const bool few = reads_in_place(p);
  if (!few) pack_keys<T>(p, b, g, mine);
  T *query = mine.query.get(), *tile = mine.tile.get(), *out = mine.out.get();
  constexpr int64_t ldc = kLong.columns;
  pack_rows<T>({p.query, b, h, i0, rows, p.width}, query_factor<T>(p), query, p.width, mine.watch);
  std::fill(out, out + rows * across, T(0));
  if constexpr (Weigh::shares) Weigh::start(p, b, h, rows, mine.top, mine.total);

  const Span seen = columns_of<T>(i0, rows, [&](int64_t i) { return keys_of(p, b, i); });
  for (int64_t j0 = seen.low; j0 < seen.high; j0 += kLong.columns) {
    const Place at{b, h, i0, rows, j0, std::min(kLong.columns, seen.high - j0), true};
    if (!mine.sight.look(p, at, mine.watch)) continue;
    Span* groups = mine.sight.groups;
    if (few)
      score_few<T>({p.key, b, g, j0, p.keys - j0, p.width}, *groups, rows, query, p.width, tile,
                   ldc, mine.watch);
    else
      score_panels<T>(p, rows, query, mine.kept.panels.get() + j0 * p.width, groups, tile, ldc);
    weigh_tile<T, Weigh>(p, at, mine);
    mine.sight.narrow(rows);
    if (few)
      spend_few<T>({p.value, b, g, j0, at.columns, p.value_width}, *groups, rows, tile, ldc, out,
                   across, mine.watch);
    else
      add_product<T, kRowMajor>(rows, groups, tile, ldc,
                                mine.kept.value_tall.get() + j0 * kPanel<T>, p.keys, p.value_width, out);
  }
  write_sums<T, Weigh>(p, {p.out, b, h, i0, rows, p.value_width}, mine);
}

template <class T, class Weigh>
void forward(const Problem& p) {
  const int64_t blocks = (p.queries + kLong.rows - 1) / kLong.rows;
  const int64_t units = p.batch * p.heads * blocks;
  const int64_t share = share_of(p, units, blocks);
  auto all = scratches<ForwardScratch<T>>(p, units);
  deal(all, units, share, [&](int64_t u, ForwardScratch<T>& mine) {
    // The last rows of a causal head cost most: they go first.
    forward_block<T, Weigh>(p, u / blocks / p.heads, u / blocks % p.heads,
                            (blocks - 1 - u % blocks) * kLong.rows, mine);
  });
  report(p, all);
}

}  // namespace ogive::OGIVE_ISA
