// Packing: every operand of a product is read once from its tensor, in whatever type and strides it
// has, and laid out as the products of tile.h read it.
#pragma once

#include <algorithm>

#include "buffer.h"
#include "stored.h"
#include "tile.h"

namespace ogive::OGIVE_ISA {

// Whether every number that passed by is finite, and small enough that no product of two overflows.
template <class T>
class Watch {
 public:
  void see(Vec<T> v, T limit) { wild_ |= ~(absolute<T>(v) <= limit); }
  void see_finite(const T* from, int64_t count) {
    constexpr T most = std::numeric_limits<T>::max();
    for (int64_t k = 0; k < count; k += Lanes<T>::count)
      see(load_some<T, kOwn>(from + k, 1, count - k), most);
  }
  bool tame() const {
    for (int i = 0; i < Lanes<T>::count; ++i)
      if (wild_[i]) return false;
    return true;
  }

 private:
  Int<T> wild_{};
};
// kernels/finite.py holds the same bound.
template <class T>
constexpr T kModest = sizeof(T) == 4 ? T(0x1.fffffep61) : T(0x1.fffffffffffffp509);

// Rows first … first + rows of one head of a tensor.
struct Rows {
  const View& view;
  int64_t b, h, first, rows, columns;
};

// to[row][column], row-major, with zeros up to `wide` columns.
template <class T>
void pack_rows(const Rows& from, T factor, T* to, int64_t wide, Watch<T>& watcher) {
  constexpr int W = Lanes<T>::count;
  with_kind<T>(from.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    using Type = typename Stored<T, K>::Type;
    Watch<T> watch = watcher;  // vectors may alias anything: only a copy stays in a register
    const int64_t stride = from.view.stride[3];
    for (int64_t r = 0; r < from.rows; ++r, to += wide) {
      const Type* row = from.view.template at<Type>(from.b, from.h, from.first + r);
      int64_t k = 0;
      if (stride == 1)
        for (; k + W <= from.columns; k += W) {
          const Vec<T> v = Stored<T, K>::load(row + k);
          watch.see(v, kModest<T>);
          store<T>(to + k, v * factor);
        }
      for (; k < from.columns; k += W) {
        const Vec<T> v = load_some<T, K>(row + k * stride, stride, from.columns - k);
        watch.see(v, kModest<T>);
        const Vec<T> scaled = v * factor;
        if (k + W <= wide)
          store<T>(to + k, scaled);
        else
          for (int64_t l = 0; k + l < wide; ++l) to[k + l] = scaled[l];
      }
      for (; k < wide; ++k) to[k] = 0;
    }
    watcher = watch;
  });
}

// Column panels of the same rows: to[panel of columns][row][column of the panel].
template <class T>
void pack_tall(const Rows& from, T* to, Watch<T>& watcher) {
  constexpr int W = Lanes<T>::count;
  with_kind<T>(from.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    using Type = typename Stored<T, K>::Type;
    Watch<T> watch = watcher;
    const int64_t stride = from.view.stride[3];
    for (int64_t r = 0; r < from.rows; ++r) {
      const Type* row = from.view.template at<Type>(from.b, from.h, from.first + r);
      T* at = to + r * kPanel<T>;
      for (int64_t k = 0; k < round_up(from.columns, kPanel<T>); k += W) {
        const Vec<T> v = k + W <= from.columns && stride == 1
                             ? Stored<T, K>::load(row + k)
                             : load_some<T, K>(row + k * stride, stride, from.columns - k);
        watch.see(v, kModest<T>);
        store<T>(at + k % kPanel<T>, v);
        if (k % kPanel<T>) at += kPanel<T> * from.rows;
      }
    }
    watcher = watch;
  });
}

// Panels of rows, transposed: to[panel of rows][column][row of the panel].
template <class T, int64_t Panel = kPanel<T>>
void pack_panels(const Rows& from, T factor, T* to, Watch<T>& watcher) {
  constexpr int W = Lanes<T>::count;
  with_kind<T>(from.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    using Type = typename Stored<T, K>::Type;
    Watch<T> watch = watcher;
    const int64_t stride = from.view.stride[3], depth = from.columns;
    for (int64_t j = 0; j < round_up(from.rows, Panel); j += W) {
      T* panel = to + j / Panel * Panel * depth + j % Panel;
      for (int64_t k = 0; k < depth; k += W) {
        Vec<T> block[W];
        if (j + W <= from.rows && k + W <= depth && stride == 1) {
          const Type* row = from.view.template at<Type>(from.b, from.h, from.first + j) + k;
#pragma GCC unroll 16
          for (int r = 0; r < W; ++r, row += from.view.stride[2]) {
            block[r] = Stored<T, K>::load(row);
            watch.see(block[r], kModest<T>);
            block[r] *= factor;
          }
          transpose<T>(block);
#pragma GCC unroll 16
          for (int c = 0; c < W; ++c) store<T>(panel + (k + c) * Panel, block[c]);
          continue;
        }
        for (int r = 0; r < W; ++r) {
          block[r] = Vec<T>{};
          if (j + r >= from.rows) continue;
          const Type* row = from.view.template at<Type>(from.b, from.h, from.first + j + r);
          block[r] = load_some<T, K>(row + k * stride, stride, depth - k);
          watch.see(block[r], kModest<T>);
          block[r] *= factor;
        }
        transpose<T>(block);
        for (int64_t c = 0; c < std::min<int64_t>(W, depth - k); ++c)
          store<T>(panel + (k + c) * Panel, block[c]);
      }
    }
    watcher = watch;
  });
}

// Rows of sums that lie `apart`, each times its factor, into a tensor.
template <class T, class Factor>
void write_rows(const Rows& into, const T* from, int64_t apart, const Factor& factor) {
  constexpr int W = Lanes<T>::count;
  with_kind<T>(into.view, [&](auto kind) {
    constexpr Kind K = decltype(kind)::value;
    const int64_t stride = into.view.stride[3], columns = into.columns;
    for (int64_t r = 0; r < into.rows; ++r, from += apart) {
      auto* to = into.view.template at<typename Stored<T, K>::Type>(into.b, into.h, into.first + r);
      const T times = factor(r);
      int64_t k = 0;
      if (stride == 1)
        for (; k + W <= columns; k += W) Stored<T, K>::store(to + k, load<T>(from + k) * times);
      for (; k < columns; k += W)
        store_some<T, K>(to + k * stride, stride, columns - k, load<T>(from + k) * times);
    }
  });
}
template <class T>
void write_rows(const Rows& into, const T* from, int64_t apart, T factor = 1) {
  write_rows<T>(into, from, apart, [=](int64_t) { return factor; });
}

}  // namespace ogive::OGIVE_ISA
