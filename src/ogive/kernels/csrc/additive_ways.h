// Which way each activation goes, and what a way keeps of a head's keys and of a block of queries.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "act.h"
#include "additive_ramp.h"
#include "additive_ratio.h"
#include "buffer.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct AdditiveKeys {  // of the head that a thread is working on
  int64_t head = -1;
  Buffer<T> features;           // [span][d][kSpan], zeros after the last key
  // Of exponentials, for a query head: all spans of its keys, or one at a time.
  int64_t query_head = -1, slots = 0;
  Buffer<T> tables;     // [slot][d][kRatioTable]
  std::vector<T> most;  // [slot][d]

  int64_t slot(int64_t span) const { return slots == 1 ? 0 : span; }
};

template <class T>
struct AdditiveQueries {  // of a block
  Buffer<T> features;  // [d][kBlock], zeros after the last query
  std::vector<RatioQueries<T>> ratio;
  // Features by shared exponentials, those of them with a pair out of reach, and by their curve.
  std::vector<int64_t> near, far, others;
};

// A tile with all that the ways need.
template <class T>
struct AdditiveWork {
  AdditiveTile<T> tile;
  const AdditiveKeys<T>& keys;
  AdditiveQueries<T>& queries;
  int64_t span;
};

inline int64_t spans_of(const Problem& p) { return (p.keys + kSpan - 1) / kSpan; }

inline Features listed(const std::vector<int64_t>& some) {
  return {some.data(), int64_t(some.size())};
}

template <class T>
Features all_features(const AdditiveWork<T>& work) {
  std::vector<int64_t>& all = work.queries.others;
  all.resize(work.tile.width);
  for (int64_t d = 0; d < work.tile.width; ++d) all[d] = d;
  return listed(all);
}

// Any curve of curves.h.
template <class T, class Curve>
struct ByCurve {
  T constant;

  void reserve(const Problem&, AdditiveKeys<T>&, AdditiveQueries<T>&) const {}
  void prepare(const Problem&, int64_t, int64_t, AdditiveKeys<T>&) const {}
  void prepare(const Problem&, int64_t, AdditiveQueries<T>&) const {}
  void scores(const AdditiveWork<T>& work, T* to) const {
    curve_scores<T, Curve>(work.tile, all_features(work), constant, Everywhere<T>(), to);
  }
  void gradients(const AdditiveWork<T>& work, const T* grads, const AdditiveGrads<T>& to) const {
    curve_gradients<T, Curve>(work.tile, all_features(work), constant, Everywhere<T>(), grads, to);
  }
};

template <class T>
struct ByRamp {
  T leak;

  void reserve(const Problem&, AdditiveKeys<T>&, AdditiveQueries<T>&) const {}
  void prepare(const Problem&, int64_t, int64_t, AdditiveKeys<T>&) const {}
  void prepare(const Problem&, int64_t, AdditiveQueries<T>&) const {}
  void scores(const AdditiveWork<T>& work, T* to) const { ramp_scores<T>(work.tile, leak, to); }
  void gradients(const AdditiveWork<T>& work, const T* grads, const AdditiveGrads<T>& to) const {
    ramp_gradients<T>(work.tile, leak, grads, to);
  }
};

template <class T, class Ratio>
struct ByRatio {
  using Curve = typename Ratio::Curve;
  T constant;  // of the curve

  void reserve(const Problem& p, AdditiveKeys<T>& keys, AdditiveQueries<T>& queries) const {
    keys.tables.need(keys.slots * p.width * kRatioTable<Ratio>);
    keys.most.resize(keys.slots * p.width);
    queries.ratio.resize(p.width);
  }
  void prepare(const Problem& p, int64_t h, int64_t span, AdditiveKeys<T>& keys) const {
    const T *vectors = p.vectors.at<const T>(h, 0);
    const int64_t count = wide<T>(std::min(kSpan, p.keys - span * kSpan));
    for (int64_t d = 0; d < p.width; ++d) {
      const int64_t to = keys.slot(span) * p.width + d;
      keys.most[to] =
          ratio_keys<T, Ratio>(keys.features.get() + (span * p.width + d) * kSpan, count,
                               vectors[d], keys.tables.get() + to * kRatioTable<Ratio>);
    }
  }
  void prepare(const Problem& p, int64_t h, AdditiveQueries<T>& queries) const {
    const T* vectors = p.vectors.at<const T>(h, 0);
    for (int64_t d = 0; d < p.width; ++d)
      ratio_queries<T, Ratio>(queries.features.get() + d * kBlock, vectors[d], queries.ratio[d]);
  }
  // Shares the features out. Which are near follows from the vector alone.
  static RatioTile<T, Ratio> part(const AdditiveWork<T>& work) {
    AdditiveQueries<T>& q = work.queries;
    const int64_t at = work.keys.slot(work.span) * work.tile.width;
    const RatioTile<T, Ratio> side = {work.keys.tables.get() + at * kRatioTable<Ratio>,
                               kRatioTable<Ratio>, work.keys.most.data() + at, q.ratio.data()};
    q.near.clear();
    q.far.clear();
    q.others.clear();
    for (int64_t d = 0; d < work.tile.width; ++d) {
      const bool near = std::abs(work.tile.vectors[d]) <= kRatioVector<T>;
      (near ? q.near : q.others).push_back(d);
      if (near && side.far(d)) q.far.push_back(d);
    }
    return side;
  }
  void scores(const AdditiveWork<T>& work, T* to) const {
    const RatioTile<T, Ratio> side = part(work);
    const AdditiveQueries<T>& q = work.queries;
    ratio_scores<T, Ratio>(work.tile, side, listed(q.near), to);
    if (!q.far.empty())
      curve_scores<T, Curve>(work.tile, listed(q.far), constant, Beyond<T, Ratio>(), to);
    if (!q.others.empty())
      curve_scores<T, Curve>(work.tile, listed(q.others), constant, Everywhere<T>(), to);
  }
  void gradients(const AdditiveWork<T>& work, const T* grads, const AdditiveGrads<T>& to) const {
    const RatioTile<T, Ratio> side = part(work);
    const AdditiveQueries<T>& q = work.queries;
    ratio_gradients<T, Ratio>(work.tile, side, listed(q.near), grads, to);
    if (!q.far.empty())
      curve_gradients<T, Curve>(work.tile, listed(q.far), constant, Beyond<T, Ratio>(), grads, to);
    if (!q.others.empty())
      curve_gradients<T, Curve>(work.tile, listed(q.others), constant, Everywhere<T>(), grads, to);
  }
};

// Runs `with` for the way of the problem's activation.
template <class T, class With>
void with_way(const Problem& p, With with) {
  switch (p.act) {
    case kTanh: return with(ByRatio<T, TanhRatio>{1});
    case kSigmoid: return with(ByRatio<T, SigmoidRatio>{0});
    case kRelu: return with(ByRamp<T>{0});
    case kLeakyRelu: return with(ByRamp<T>{T(p.act_constant)});
    default:
      return with_act(p, [&](auto curve, double c) { with(ByCurve<T, decltype(curve)>{T(c)}); });
  }
}

template <class T>
void reserve_additive(const Problem& p, int64_t slots, AdditiveKeys<T>& keys,
                      AdditiveQueries<T>& queries) {
  keys.slots = slots;
  keys.features.need(spans_of(p) * kSpan * p.width);
  queries.features.need(kBlock * p.width);
  queries.near.reserve(p.width);
  queries.far.reserve(p.width);
  queries.others.reserve(p.width);
  with_way<T>(p, [&](auto way) { way.reserve(p, keys, queries); });
}

// Keys of a head, feature by feature.
template <class T>
void pack_features(const Problem& p, int64_t b, int64_t g, AdditiveKeys<T>& kept, Watch<T>& watch) {
  pack_panels<T, kSpan>({p.key, b, g, 0, p.keys, p.width}, 1, kept.features.get(), watch);
}

// What some spans of packed keys are to a query head.
template <class T>
void prepare_keys(const Problem& p, int64_t h, Span spans, AdditiveKeys<T>& kept) {
  with_way<T>(p, [&](auto way) {
    for (int64_t span = spans.low; span < spans.high; ++span) way.prepare(p, h, span, kept);
  });
}

// A block of queries, feature by feature.
template <class T>
void pack_features(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows,
                   AdditiveQueries<T>& block, Watch<T>& watch) {
  pack_panels<T, kBlock>({p.query, b, h, i0, rows, p.width}, 1, block.features.get(), watch);
  with_way<T>(p, [&](auto way) { way.prepare(p, h, block); });
}

// Runs `with` for the parts of a tile that show something: neighbouring groups of rows that have
// use for the same columns, together.
template <class T, class With>
void with_parts(const Problem& p, const Place& at, const Sight<T>& sight,
                const AdditiveKeys<T>& keys, AdditiveQueries<T>& queries, With with) {
  const int64_t span = at.start / kSpan;
  for (int64_t r = 0, next = 0; r < at.rows; r = next) {
    const Span& columns = sight.groups[r / kRows];
    for (next = r; next < at.rows; next += kRows) {
      const Span& other = sight.groups[next / kRows];
      if (other.low != columns.low || other.high != columns.high) break;
    }
    next = std::min(next, at.rows);
    if (columns.empty()) continue;
    with(AdditiveWork<T>{{{r, next}, columns, p.width, p.vectors.at<const T>(at.h, 0),
                          queries.features.get(), keys.features.get() + span * kSpan * p.width},
                         keys, queries, span});
  }
}

// Scores of the parts of a tile that show something, row r from scores + r · kSpan.
template <class T>
void additive_scores(const Problem& p, const Place& at, const Sight<T>& sight,
                     const AdditiveKeys<T>& keys, AdditiveQueries<T>& queries, T* scores) {
  std::fill(scores, scores + at.rows * kSpan, T(0));
  with_way<T>(p, [&](auto way) {
    with_parts<T>(p, at, sight, keys, queries, [&](auto work) { way.scores(work, scores); });
  });
}

// From ∂/∂scores of the tile to the sums of its queries, keys and vectors.
template <class T>
void additive_gradients(const Problem& p, const Place& at, const Sight<T>& sight,
                        const AdditiveKeys<T>& keys, AdditiveQueries<T>& queries, const T* grads,
                        const AdditiveGrads<T>& to) {
  with_way<T>(p, [&](auto way) {
    with_parts<T>(p, at, sight, keys, queries, [&](auto work) { way.gradients(work, grads, to); });
  });
}

}  // namespace ogive::OGIVE_ISA
