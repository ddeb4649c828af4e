// Hands: the keys of a head are dealt to a fixed number of them, each with sums of its own for the
// queries, which are added in order. So no sum depends on a number of threads or on a batch.
#pragma once

#include <algorithm>

#include "block.h"
#include "pack.h"

namespace ogive::OGIVE_ISA {

// Queries as rows of the sums that a hand has for them.
struct Totals {
  int64_t across, member, hand;  // numbers of a row, of a head, of a group of heads

  template <class T>
  static Totals of(const Problem& p, T) {
    const int64_t across = wide<T>(p.width), member = p.queries * across;
    return {across, member, p.heads / p.shared * member};
  }
};

// Among how many hands the blocks of one head's keys are dealt: enough that few heads keep a
// machine busy. It depends on no batch and no number of threads, so neither changes the sums.
inline int64_t hands_of(const Problem& p, int64_t key_blocks) {
  constexpr int64_t busy = 16;
  return std::clamp<int64_t>(busy / p.shared, 1, std::max<int64_t>(1, key_blocks));
}

// The hands of one head, added in order, into its queries' gradient.
template <class T>
void add_hands(const Problem& p, int64_t b, int64_t h, int64_t hands, T* totals) {
  const int64_t group = p.heads / p.shared;
  const Totals size = Totals::of(p, T{});
  T* first = totals + (b * p.shared + h / group) * hands * size.hand + h % group * size.member;
  for (int64_t i = 0; i < p.queries; ++i) {
    T* row = first + i * size.across;
    for (int64_t hand = 1; hand < hands; ++hand)
      for (int64_t k = 0; k < size.across; k += Lanes<T>::count)
        store<T>(row + k, load<T>(row + k) + load<T>(row + hand * size.hand + k));
  }
  write_rows<T>({p.grad_query, b, h, 0, p.queries, p.width}, first, size.across, T(p.scale));
}

// How the units (batch, key head, hand) of a pass fall apart: those that add to the same entries of
// a broadcast bias's gradient go one after another, in one thread.
struct Shares {
  int64_t outer[3], inner[3];

  Shares(const Problem& p, int64_t hands) {
    const int64_t all[] = {p.batch, p.shared, hands};
    constexpr int axes[] = {0, 1, 3};
    for (int axis = 0; axis < 3; ++axis) {
      const bool shared = p.grad_bias && p.grad_bias.stride[axes[axis]] == 0;
      outer[axis] = shared ? 1 : all[axis];
      inner[axis] = shared ? all[axis] : 1;
    }
  }
  int64_t apart() const { return outer[0] * outer[1] * outer[2]; }

  // Calls work(b, g, hand) for what goes together in share u.
  template <class Work>
  void each(int64_t u, const Work& work) const {
    for (int64_t w = 0; w < inner[0] * inner[1] * inner[2]; ++w)
      work(u / outer[2] / outer[1] + w / inner[2] / inner[1],
           u / outer[2] % outer[1] + w / inner[2] % inner[1], u % outer[2] + w % inner[2]);
  }
};

// A backward pass: work(b, g, block, scratch, sums of the hand) for every block of every head's keys.
template <class T, class Scratch, class Work>
void by_hands(const Problem& p, int64_t blocks, const Work& work) {
  const int64_t hands = hands_of(p, blocks), heads = p.batch * p.heads;
  const Shares shares(p, hands);
  const int64_t size = Totals::of(p, T{}).hand;
  Buffer<T> buffer;
  T* totals = buffer.need(p.batch * p.shared * hands * size);
  auto all = scratches<Scratch>(p, std::max(shares.apart(), heads));
  deal(all, shares.apart(), 1, [&](int64_t u, Scratch& mine) {
    shares.each(u, [&](int64_t b, int64_t g, int64_t hand) {
      T* own = totals + ((b * p.shared + g) * hands + hand) * size;
      std::fill(own, own + size, T(0));
      for (int64_t block = hand; block < blocks; block += hands) work(b, g, block, mine, own);
    });
  });
  deal(all, heads, 1, [&](int64_t u, Scratch&) {
    add_hands<T>(p, u / p.heads, u % p.heads, hands, totals);
  });
  report(p, all);
}

}  // namespace ogive::OGIVE_ISA
