// Blocks: what a thread keeps packed of a head, and how work is dealt.
#pragma once

#include <omp.h>

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "seen.h"

namespace ogive::OGIVE_ISA {

// What one thread keeps of the head it is working on.
template <class T>
struct Packed {
  int64_t head = -1;
  Buffer<T> panels, value_panels, tall, value_tall, first, second;
  Buffer<uint32_t> counters[2];  // of dropout, low and high halves
};

// The same span for every group of rows.
struct Same {
  Span spans[kSpan / 6 + 1];
  explicit Same(Span span) { std::fill(std::begin(spans), std::end(spans), span); }
};

template <class T>
int64_t wide(int64_t columns) {
  return round_up(columns, kPanel<T>);
}

// How many blocks a thread takes at a time: a head's where there are enough, so that few threads
// pack the same head.
inline int64_t share_of(const Problem& p, int64_t units, int64_t blocks) {
  return std::clamp<int64_t>(units / (4 * p.threads), 1, std::max<int64_t>(1, blocks));
}

// One scratch for each thread, all of its memory taken before any thread starts: what runs out
// there is an exception here, not the end of the process.
template <class Scratch>
std::vector<Scratch> scratches(const Problem& p, int64_t units) {
  std::vector<Scratch> all(std::max<int64_t>(1, std::min(p.threads, units)));
  for (Scratch& one : all) one.reserve(p);
  return all;
}

// Deals `units` of work to the threads, one for each scratch, `share` units at a time.
template <class Scratch, class Work>
void deal(std::vector<Scratch>& all, int64_t units, int64_t share, const Work& work) {
  if (all.size() == 1) {  // OpenMP makes system calls even for one thread
    for (int64_t u = 0; u < units; ++u) work(u, all[0]);
    return;
  }
#pragma omp parallel num_threads(all.size())
  {
    Scratch& mine = all[omp_get_thread_num()];
#pragma omp for schedule(dynamic, share)
    for (int64_t u = 0; u < units; ++u) work(u, mine);
  }
}

template <class Scratch>
void report(const Problem& p, const std::vector<Scratch>& all) {
  for (const Scratch& one : all)
    if (p.wild && !one.watch.tame()) *p.wild = true;
}

}  // namespace ogive::OGIVE_ISA
