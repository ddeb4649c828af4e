// Linear attention backward, from ĝ_i = factor_i grad_i and, where rows are divided by their total,
// e_i = −factor_i (grad_i · out_i), which the total passes on:
//
//   dq_i = Σ_j (ĝ_i · v_j + e_i) k_j,   dk_j = Σ_i (ĝ_i · v_j + e_i) q_i,   dv_j = Σ_i (q_i · k_j) ĝ_i.
//
// Queries go forward along the head with Σ v kᵀ, keys and values backward with Σ q ĝᵀ.
#pragma once

#include "linear_forward.h"

namespace ogive::OGIVE_ISA {

template <class T>
struct LinearBackward {
  const LinearProblem& p;
  Peak<T> peaks[4];
  Rows<T> queries, keys, values, grads;
  State<T> state;
  Buffer<T> tile, panels, value_panels, sums, value_sums, turned;
  int64_t turned_wide = 0;
  T shares[kChunk];  // e_i

  explicit LinearBackward(const LinearProblem& problem) : p(problem) {}

  void head(int64_t b, int64_t g) {
    tile.need(round_up(kChunk, kRows) * kChunkPanel<T>);
    forwards(b, g);
    backwards(b, g);
  }

  // ĝ and e of a block of queries.
  void pack_grads(int64_t b, int64_t h, int64_t i0, int64_t n) {
    grads.pack(p.grad_out, b, h, i0, n, p.value_width, peaks[3]);
    for (int64_t r = 0; r < n; ++r) {
      if (!p.normalise) {
        grads.times(r, T(p.scale) * (p.constant ? *p.constant.at<T>(b, h, i0 + r) : T(1)));
        continue;
      }
      const T total = *p.total.at<T>(b, h, i0 + r);
      const T factor = total == 0 || p.scale == 0 ? 0 : 1 / total;
      const T *row = grads.data + r * grads.wide, *out = p.out.at<T>(b, h, i0 + r);
      T along = 0;
      for (int64_t k = 0; k < p.value_width; ++k) along += row[k] * out[k * p.out.stride[3]];
      shares[r] = -along * factor;
      grads.times(r, factor);
    }
  }
  const T* more() const { return p.normalise ? shares : nullptr; }

  static void write(const View& to, int64_t a, int64_t b, int64_t first, int64_t n, int64_t columns,
                    const T* rows, int64_t wide) {
    for (int64_t r = 0; r < n; ++r) {
      T* row = to.at<T>(a, b, first + r);
      for (int64_t k = 0; k < columns; ++k) row[k * to.stride[3]] = rows[r * wide + k];
    }
  }

  // --- the gradient of queries

  void forwards(int64_t b, int64_t g) {
    const int64_t group = p.heads / p.shared;
    state.start(p.value_width, p.width, p.width);
    int64_t absorbed = 0;
    for (int64_t i0 = 0; i0 < p.queries; i0 += kChunk) {
      const int64_t n = std::min(kChunk, p.queries - i0);
      const Stand at = stand(p, b, i0, n);
      for (; absorbed < at.low; absorbed += keys.n) {
        pack_pairs<T>(p, b, g, absorbed, std::min(kChunk, at.low - absorbed), keys, values, peaks);
        state.add(values, keys, keys, nullptr);
      }
      state.settle();
      if (at.high > at.low) {
        pack_pairs<T>(p, b, g, at.low, at.high - at.low, keys, values, peaks);
        pack_panels<T>(values.data, values.n, values.wide, p.value_width, 1, T(1),
                       value_panels.need(kChunkPanel<T> * p.value_width));
      }
      for (int64_t member = 0; member < group; ++member)
        query_block(b, g * group + member, i0, n, at);
      if (at.high > at.low) state.add(values, keys, keys, nullptr);
      absorbed = std::max(absorbed, at.high);
    }
  }

  void query_block(int64_t b, int64_t h, int64_t i0, int64_t n, const Stand& at) {
    pack_grads(b, h, i0, n);
    const int64_t wide = state.wide();
    T* rows = sums.need(round_up(kChunk, kRows) * wide);
    product<T, false>(grads.tall, p.value_width, grads.data, grads.wide, state.get(), wide, wide,
                      rows, wide);
    if (p.normalise)
      for (int64_t r = 0; r < n; ++r)
        for (int64_t k = 0; k < p.width; ++k) rows[r * wide + k] += shares[r] * state.sum()[k];
    T* square = tile.get();
    if (at.high > at.low)
      triangle<T>(at, grads, p.value_width, value_panels.get(), square, more(),
                  [&](int64_t r, int64_t seen) {
                    product<T, true>(kRows, seen, square + r * kChunkPanel<T>, kChunkPanel<T>,
                                     keys.data, wide, wide, rows + r * wide, wide);
                  });
    write(p.grad_query, b, h, i0, n, p.width, rows, wide);
  }

  // --- the gradients of keys and values

  void backwards(int64_t b, int64_t g) {
    state.start(p.width, p.value_width, p.width);
    const int64_t blocks = (p.queries + kChunk - 1) / kChunk;
    // Keys that no query sees are not even read.
    const int64_t last = (blocks - 1) * kChunk;
    int64_t written = blocks ? stand(p, b, last, p.queries - last).high : 0;
    clear_keys(b, g, written);
    for (int64_t block = blocks - 1; block >= 0; --block) {
      const int64_t i0 = block * kChunk, n = std::min(kChunk, p.queries - i0);
      const Stand at = stand(p, b, i0, n);
      key_block(b, g, i0, n, at);
      written = at.low;
    }
    key_chunks(b, g, 0, written);
  }

  void clear_keys(int64_t b, int64_t g, int64_t from) {
    for (int64_t j = from; j < p.keys; ++j) {
      T *key = p.grad_key.at<T>(b, g, j), *value = p.grad_value.at<T>(b, g, j);
      for (int64_t k = 0; k < p.width; ++k) key[k * p.grad_key.stride[3]] = 0;
      for (int64_t k = 0; k < p.value_width; ++k) value[k * p.grad_value.stride[3]] = 0;
    }
  }

  // Keys of [from, to), each of which every query so far sees.
  void key_chunks(int64_t b, int64_t g, int64_t from, int64_t to) {
    for (int64_t j0 = from; j0 < to; j0 += kChunk) {
      pack_pairs<T>(p, b, g, j0, std::min(kChunk, to - j0), keys, values, peaks);
      start_keys();
      write_keys(b, g, j0);
    }
  }

  void key_block(int64_t b, int64_t g, int64_t i0, int64_t n, const Stand& at) {
    const int64_t group = p.heads / p.shared;
    const bool any = at.high > at.low;
    if (any) {
      pack_pairs<T>(p, b, g, at.low, at.high - at.low, keys, values, peaks);
      pack_panels<T>(keys.data, keys.n, keys.wide, p.width, 1, T(1),
                     panels.need(kChunkPanel<T> * p.width));
      pack_panels<T>(values.data, values.n, values.wide, p.value_width, 1, T(1),
                     value_panels.need(kChunkPanel<T> * p.value_width));
      start_keys();
    }
    for (int64_t member = 0; member < group; ++member) {
      const int64_t h = g * group + member;
      queries.pack(p.query, b, h, i0, n, p.width, peaks[0]);
      pack_grads(b, h, i0, n);
      if (any) {
        triangle<T>(at, queries, p.width, panels.get(), tile.get(), nullptr, [](int64_t, int64_t) {});
        spread(at, grads, value_sums.get());
        triangle<T>(at, grads, p.value_width, value_panels.get(), tile.get(), more(),
                    [](int64_t, int64_t) {});
        spread(at, queries, sums.get());
      }
      state.add(queries, grads, queries, more());
    }
    if (any) write_keys(b, g, at.low);
  }

  // What the queries of later blocks make of the packed keys and values.
  void start_keys() {
    if (state.stale()) {
      state.settle();
      turned_wide = round_up(p.width, kPanel<T>);
      state.transposed(p.value_width, turned_wide, turned.need(p.value_width * turned_wide));
    }
    const int64_t wide = keys.wide, wide_value = values.wide;
    T* to = sums.need(round_up(kChunk, kRows) * wide);
    T* to_value = value_sums.need(round_up(kChunk, kRows) * wide_value);
    product<T, false>(keys.tall, p.value_width, values.data, wide_value, turned.get(), turned_wide,
                      wide, to, wide);
    product<T, false>(keys.tall, p.width, keys.data, wide, state.get(), wide_value, wide_value,
                      to_value, wide_value);
    if (p.normalise)
      for (int64_t r = 0; r < keys.n; ++r)
        for (int64_t k = 0; k < p.width; ++k) to[r * wide + k] += state.sum()[k];
  }

  // Adds tileᵀ · rows: key c is seen by the queries of the block from c − ahead on.
  void spread(const Stand& at, const Rows<T>& rows, T* to) {
    const int64_t columns = round_up(at.high - at.low, 2);
    for (int64_t j = 0; j < rows.wide; j += kPanel<T>) {
      int64_t c = 0;
      for (; c + kRows <= columns; c += kRows) spread_group<kRows>(at, c, rows, j, to);
      for (; c < columns; c += 2) spread_group<2>(at, c, rows, j, to);
    }
  }
  template <int Columns>
  void spread_group(const Stand& at, int64_t c, const Rows<T>& rows, int64_t j, T* to) {
    const int64_t first = std::clamp<int64_t>(c - at.ahead, 0, rows.n);
    micro<T, Columns, true>(rows.n - first, tile.get() + first * kChunkPanel<T> + c, 1,
                            kChunkPanel<T>, rows.data + first * rows.wide + j, rows.wide,
                            to + c * rows.wide + j, rows.wide);
  }

  void write_keys(int64_t b, int64_t g, int64_t j0) {
    for (int64_t r = 0; r < keys.n; ++r)
      if (!shows<T>(p, b, g, j0 + r)) {
        std::fill_n(sums.get() + r * keys.wide, keys.wide, T(0));
        std::fill_n(value_sums.get() + r * values.wide, values.wide, T(0));
      }
    write(p.grad_key, b, g, j0, keys.n, p.width, sums.get(), keys.wide);
    write(p.grad_value, b, g, j0, values.n, p.value_width, value_sums.get(), values.wide);
  }
};

}  // namespace ogive::OGIVE_ISA
