// Linear attention forward: states of the keys before a block, and a triangle within it.
#pragma once

#include <optional>

#include "linear_state.h"
#include "team.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct LinearForward {
  const LinearProblem& p;
  Peak<T> peaks[4];
  Rows<T> queries, keys, values;
  State<T> state;  // Σ k vᵀ and Σ k of the keys before `absorbed`
  int64_t absorbed = 0;
  Buffer<T> tile, out, panels;
  T totals[kChunk];

  explicit LinearForward(const LinearProblem& problem) : p(problem) {}

  void head(int64_t b, int64_t g) {
    const int64_t group = p.heads / p.shared;
    state.start(p.width, p.value_width, p.width);
    absorbed = 0;
    for (int64_t i0 = 0; i0 < p.queries; i0 += kChunk) {
      const int64_t n = std::min(kChunk, p.queries - i0);
      const Stand at = stand(p, b, i0, n);
      for (; absorbed < at.low; absorbed += keys.n) {
        pack_pairs<T>(p, b, g, absorbed, std::min(kChunk, at.low - absorbed), keys, values, peaks);
        state.add(keys, values, keys, nullptr);
      }
      state.settle();
      if (at.high > at.low) pack_tile(b, g, at);
      for (int64_t member = 0; member < group; ++member) block(b, g * group + member, i0, n, at);
      if (at.high > at.low) state.add(keys, values, keys, nullptr);
      absorbed = std::max(absorbed, at.high);
    }
  }

  void pack_tile(int64_t b, int64_t g, const Stand& at) {
    pack_pairs<T>(p, b, g, at.low, at.high - at.low, keys, values, peaks);
    pack_panels<T>(keys.data, keys.n, keys.wide, p.width, 1, T(1),
                   panels.need(kChunkPanel<T> * p.width));
  }

  void block(int64_t b, int64_t h, int64_t i0, int64_t n, const Stand& at) {
    queries.pack(p.query, b, h, i0, n, p.width, peaks[0]);
    const int64_t wide = state.wide();
    T* rows = out.need(round_up(kChunk, kRows) * wide);
    T* square = tile.need(round_up(kChunk, kRows) * kChunkPanel<T>);
    product<T, false>(queries.tall, p.width, queries.data, queries.wide, state.get(), wide, wide,
                      rows, wide);
    if (p.normalise) start_totals(n);
    if (at.high > at.low)
      triangle<T>(at, queries, p.width, panels.get(), square, nullptr, [&](int64_t r, int64_t seen) {
        product<T, true>(kRows, seen, square + r * kChunkPanel<T>, kChunkPanel<T>, values.data,
                         wide, wide, rows + r * wide, wide);
        if (p.normalise) add_totals(r, std::min(n, r + kRows), seen, square);
      });
    for (int64_t r = 0; r < n; ++r) write(b, h, i0 + r, rows + r * wide, totals[r]);
  }

  void start_totals(int64_t n) {
    for (int64_t r = 0; r < n; ++r) {
      const T* row = queries.data + r * queries.wide;
      Vec<T> sums{};
      int64_t k = 0;
      for (; k + Lanes<T>::count <= p.width; k += Lanes<T>::count)
        sums += load<T>(row + k) * load<T>(state.sum() + k);
      totals[r] = sum<T>(sums);
      for (; k < p.width; ++k) totals[r] += row[k] * state.sum()[k];
    }
  }

  void add_totals(int64_t from, int64_t to, int64_t seen, const T* square) {
    for (int64_t r = from; r < to; ++r) {
      Vec<T> sums{};
      for (int64_t c = 0; c < round_up(seen, kPanel<T>); c += Lanes<T>::count)
        sums += load<T>(square + r * kChunkPanel<T> + c);
      totals[r] += sum<T>(sums);
    }
  }

  void write(int64_t b, int64_t h, int64_t i, const T* row, T total) {
    T factor;
    if (p.normalise) {
      *p.total.at<T>(b, h, i) = total;
      factor = total == 0 || p.scale == 0 ? 0 : 1 / total;
    } else {
      factor = T(p.scale) * (p.constant ? *p.constant.at<T>(b, h, i) : T(1));
    }
    T* to = p.out.at<T>(b, h, i);
    for (int64_t k = 0; k < p.value_width; ++k) to[k * p.out.stride[3]] = row[k] * factor;
  }
};

// Runs `work` over all key/value heads, and leaves the largest numbers that were read.
template <class T, class Work>
void over_heads(const LinearProblem& p) {
  const int64_t units = p.batch * p.shared;
  double q = 0, k = 0, v = 0, g = 0;
  Team team;
#pragma omp parallel num_threads(p.threads) if (p.threads > 1 && units > 1) \
    reduction(max : q, k, v, g)
  {
    std::optional<Work> work;
    team.run([&] { work.emplace(p); });
#pragma omp for schedule(dynamic, 1)
    for (int64_t u = 0; u < units; ++u)
      team.run([&] { work->head(u / p.shared, u % p.shared); });
    team.run([&] {
      q = work->peaks[0].value();
      k = work->peaks[1].value();
      v = work->peaks[2].value();
      g = work->peaks[3].value();
    });
  }
  team.end();
  const double found[] = {q, k, v, g};
  std::copy_n(found, 4, p.peaks);
}

}  // namespace ogive::OGIVE_ISA
