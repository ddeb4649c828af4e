// Maps of whole tensors for one instruction set; compiled once for each, with OGIVE_ISA and its flags.
#include "maps.h"

#include <algorithm>

#include "map_table.h"

#define OGIVE_JOIN_(a, b) a##b
#define OGIVE_JOIN(a, b) OGIVE_JOIN_(a, b)

namespace ogive {
namespace {

namespace here = OGIVE_ISA;

constexpr int64_t kGrain = 1 << 15;  // numbers for which a thread is worth waking

// The last few numbers go through whole vectors too, so a number's place never shows in its bits.
template <class T, class Of>
void each(int64_t n, int64_t threads, Of of) {
  constexpr int64_t W = here::Lanes<T>::count;
  const int64_t pieces = (n + kGrain - 1) / kGrain;
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1 && pieces > 1)
  for (int64_t piece = 0; piece < pieces; ++piece) {
    const int64_t to = std::min(n, (piece + 1) * kGrain), whole = to / W * W;
    for (int64_t k = piece * kGrain; k < whole; k += W) of(k);
    if (whole < to) of(whole, to - whole);
  }
}

// What a map does to numbers from k on: to a whole vector, or to the last few.
template <class T>
class Numbers {
 public:
  explicit Numbers(const void* from) : from_(static_cast<const T*>(from)) {}
  here::Vec<T> at(int64_t k) const { return here::load<T>(from_ + k); }
  here::Vec<T> at(int64_t k, int64_t count) const {
    T padded[here::Lanes<T>::count] = {};
    std::copy_n(from_ + k, count, padded);
    return here::load<T>(padded);
  }

 private:
  const T* from_;
};

template <class T>
void put(T* to, here::Vec<T> v) {
  here::store<T>(to, v);
}
template <class T>
void put(T* to, here::Vec<T> v, int64_t count) {
  T padded[here::Lanes<T>::count];
  here::store<T>(padded, v);
  std::copy_n(padded, count, to);
}

template <class T, class Map>
void value(const void* x, const void*, void* y, int64_t n, int64_t threads) {
  const Numbers<T> from(x);
  T* to = static_cast<T*>(y);
  each<T>(n, threads, [=](int64_t k, auto... count) {
    put<T>(to + k, Map::template value<T>(from.at(k, count...)), count...);
  });
}

template <class T, class Map>
void slope(const void* x, const void* g, void* y, int64_t n, int64_t threads) {
  const Numbers<T> from(x), grad(g);
  T* to = static_cast<T*>(y);
  each<T>(n, threads, [=](int64_t k, auto... count) {
    put<T>(to + k, Map::template slope<T>(from.at(k, count...)) * grad.at(k, count...), count...);
  });
}

template <class Map>
constexpr MapEntry entry(std::string_view name) {
  return {name, {value<float, Map>, value<double, Map>}, {slope<float, Map>, slope<double, Map>}};
}

constexpr MapEntry entries[] = {
    entry<here::EluMap>("elu"),           entry<here::Elu1Map>("elu1"),
    entry<here::MishMap>("mish"),         entry<here::SoftplusMap>("softplus"),
    entry<here::TanhMap>("tanh"),
};

}  // namespace

MapTable OGIVE_JOIN(OGIVE_ISA, _maps)() { return {entries, int(std::size(entries))}; }

}  // namespace ogive
