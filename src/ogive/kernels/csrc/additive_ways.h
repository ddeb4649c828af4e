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
  Buffer<T> tables;             // [span][d][kRatioTable]
  std::vector<Sizes<T>> sizes;  // [span][d]
};

template <class T>
struct AdditiveQueries {  // of a block
  Buffer<T> features;  // [d][kBlock], zeros after the last query
  std::vector<RatioQueries<T>> ratio;
  std::vector<int64_t> near, far;  // features by shared exponentials, and by their curve
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
  std::vector<int64_t>& all = work.queries.far;
  all.resize(work.tile.width);
  for (int64_t d = 0; d < work.tile.width; ++d) all[d] = d;
  return listed(all);
}

// Any curve of curves.h.
template <class T, class Curve>
struct ByCurve {
  T constant;

  void reserve(const Problem&, AdditiveKeys<T>&, AdditiveQueries<T>&) const {}
  void prepare(const Problem&, AdditiveKeys<T>&) const {}
  void prepare(const Problem&, int64_t, AdditiveQueries<T>&) const {}
  void scores(const AdditiveWork<T>& work, T* to) const {
    curve_scores<T, Curve>(work.tile, all_features(work), constant, to);
  }
  void gradients(const AdditiveWork<T>& work, const T* grads, const AdditiveGrads<T>& to) const {
    curve_gradients<T, Curve>(work.tile, all_features(work), constant, grads, to);
  }
};

template <class T>
struct ByRamp {
  T leak;

  void reserve(const Problem&, AdditiveKeys<T>&, AdditiveQueries<T>&) const {}
  void prepare(const Problem&, AdditiveKeys<T>&) const {}
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
    keys.tables.need(spans_of(p) * p.width * kRatioTable<Ratio>);
    keys.sizes.resize(spans_of(p) * p.width);
    queries.ratio.resize(p.width + 1);
  }
  void prepare(const Problem& p, AdditiveKeys<T>& keys) const {
    for (int64_t at = 0; at < spans_of(p) * p.width; ++at)
      keys.sizes[at] = ratio_keys<T, Ratio>(keys.features.get() + at * kSpan,
                                            std::min(kSpan, p.keys - at / p.width * kSpan),
                                            keys.tables.get() + at * kRatioTable<Ratio>);
  }
  void prepare(const Problem& p, int64_t rows, AdditiveQueries<T>& queries) const {
    for (int64_t d = 0; d < p.width; ++d)
      ratio_queries<T, Ratio>(queries.features.get() + d * kBlock, rows, queries.ratio[d]);
    RatioQueries<T>& last = queries.ratio[p.width];
    std::fill(last.plain, last.plain + kBlock, T(1));
    std::fill(last.u, last.u + kBlock, T(1));
    std::fill(last.constant, last.constant + kBlock, T(0));
    std::fill(last.share, last.share + kBlock, T(0));
    std::fill(last.sign, last.sign + kBlock, int64_t(0));
  }
  // Shares the features among exponentials (`near`) and curve (`far`); whether the plain form will
  // do for the near ones: its rounding, as many times √Σ v² as terms that do not agree leave, is
  // small beside what the rule allows for numbers of these sizes.
  static bool part(const AdditiveWork<T>& work, T reach) {
    AdditiveQueries<T>& q = work.queries;
    const Sizes<T>* keys = work.keys.sizes.data() + work.span * work.tile.width;
    q.near.clear();
    q.far.clear();
    T terms = 0, squares = 0;
    for (int64_t d = 0; d < work.tile.width; ++d) {
      const T w = std::abs(work.tile.vectors[d]);
      const bool small = std::max(q.ratio[d].size.most, keys[d].most) <= reach;
      (small && w <= RatioReach<T>::vector ? q.near : q.far).push_back(d);
      terms += w * std::min<T>(1, (q.ratio[d].size.mean + keys[d].mean) / Ratio::factor);
      squares += w * w;
    }
    return !Ratio::careful || terms >= 2 * std::sqrt(squares);
  }
  static RatioTile<T> tables(const AdditiveWork<T>& work) {
    static constexpr T nothing[kRatioTable<Ratio>] = {};
    return {work.keys.tables.get() + work.span * work.tile.width * kRatioTable<Ratio>,
            kRatioTable<Ratio>, nothing, work.queries.ratio.data()};
  }
  void scores(const AdditiveWork<T>& work, T* to) const {
    const bool plain = part(work, RatioReach<T>::forward);
    const Features near = listed(work.queries.near);
    if (plain)
      plain_scores<T, Ratio>(work.tile, tables(work), near, to);
    else
      careful_scores<T>(work.tile, tables(work), near, to);
    if (!work.queries.far.empty())
      curve_scores<T, Curve>(work.tile, listed(work.queries.far), constant, to);
  }
  void gradients(const AdditiveWork<T>& work, const T* grads, const AdditiveGrads<T>& to) const {
    const bool plain = part(work, RatioReach<T>::backward);
    const Features near = listed(work.queries.near);
    if (plain)
      plain_gradients<T, Ratio>(work.tile, tables(work), near, grads, to);
    else
      careful_gradients<T>(work.tile, tables(work), near, grads, to);
    if (!work.queries.far.empty())
      curve_gradients<T, Curve>(work.tile, listed(work.queries.far), constant, grads, to);
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
void reserve_additive(const Problem& p, AdditiveKeys<T>& keys, AdditiveQueries<T>& queries) {
  keys.features.need(spans_of(p) * kSpan * p.width);
  queries.features.need(kBlock * p.width);
  queries.near.reserve(p.width);
  queries.far.reserve(p.width);
  with_way<T>(p, [&](auto way) { way.reserve(p, keys, queries); });
}

// Keys of a head, feature by feature.
template <class T>
void pack_features(const Problem& p, int64_t b, int64_t g, AdditiveKeys<T>& kept, Watch<T>& watch) {
  pack_panels<T, kSpan>({p.key, b, g, 0, p.keys, p.width}, 1, kept.features.get(), watch);
  with_way<T>(p, [&](auto way) { way.prepare(p, kept); });
}

// A block of queries, feature by feature.
template <class T>
void pack_features(const Problem& p, int64_t b, int64_t h, int64_t i0, int64_t rows,
                   AdditiveQueries<T>& block, Watch<T>& watch) {
  pack_panels<T, kBlock>({p.query, b, h, i0, rows, p.width}, 1, block.features.get(), watch);
  with_way<T>(p, [&](auto way) { way.prepare(p, rows, block); });
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
