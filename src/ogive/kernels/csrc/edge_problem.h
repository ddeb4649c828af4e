// One call of attention over edges: sizes, sorted edges, rows of nodes; and which loops exist.
#pragma once

#include <cstdint>
#include <string_view>

namespace ogive {

struct EdgeRows {  // (nodes or edges, heads, features), features contiguous; strides in elements
  void* data = nullptr;
  int64_t node = 0, head = 0;

  template <class T>
  T* at(int64_t i, int64_t h = 0) const {
    return static_cast<T*>(data) + i * node + h * head;
  }
  explicit operator bool() const { return data != nullptr; }
};

// Edges are sorted by target; `by_source` lists them again by source.
struct EdgeProblem {
  int64_t targets, sources, edges, heads, width, value_width, threads;
  int64_t act;                     // of an additive score, 0 for a dot product
  int64_t hides;                   // whether the bias may hide edges, by −∞
  int64_t seed;
  int64_t apart;                   // of a score by distance (apart.h), 0 for others
  double scale;                    // of a dot product; additive scores have it in the vectors
  double cap;                      // of the softcap, 0 for none
  double act_constant;             // a leaky relu's slope
  double dropout;                  // probability; 0 for none
  const int64_t *target_start, *source_start;
  const int32_t *order;            // the caller's number of each sorted edge, which dropout counts by
  const int32_t *source;           // of each sorted edge
  const int32_t *by_source, *target;  // sorted edges by source, and their targets
  EdgeRows query, key, value;      // (t, h, d), (s, h, d), (s, h, v)
  EdgeRows query_weight, key_weight;  // (h, d) of GAT: rows are added as products with them
  EdgeRows out;                    // (t, h, v)
  EdgeRows constant;               // (t, h): c of the weight function, or the sink's logit
  EdgeRows bias;                   // (sorted edges, h), added to the scores
  EdgeRows vectors;                // (h, d) of an additive score: heads are its nodes
  EdgeRows grad_out;
  EdgeRows grad_query, grad_key, grad_value;  // one memory for several: their sum; none: not asked
  EdgeRows grad_query_weight, grad_key_weight;  // (h, d) contiguous
  EdgeRows grad_bias;              // (sorted edges, h)
  EdgeRows grad_vectors;           // (h, d) contiguous
  EdgeRows grad_constant;          // (h) contiguous: of a sink's logit
  EdgeRows weights, slopes;        // (sorted edges, h): from the pass over targets to that over sources
};

using EdgeRun = void (*)(const EdgeProblem&);
struct EdgeEntry {
  std::string_view name;
  EdgeRun forward[2], backward[2];  // float, double
};
struct EdgeTable {
  const EdgeEntry* entries;
  int count;
  bool (*narrow_within)(const float*, int64_t, float);
  bool (*wide_within)(const double*, int64_t, double);
};

EdgeTable baseline_edge_table();
EdgeTable avx2_edge_table();
EdgeTable avx512_edge_table();

}  // namespace ogive
