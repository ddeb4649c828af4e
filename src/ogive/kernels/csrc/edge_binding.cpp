// Edges in the Python module: sorting, a look at values, and the loops by name.
#include "edge_binding.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "edge_problem.h"

namespace nb = nanobind;

namespace ogive {
namespace {

EdgeTable table_of(const std::string& isa) {
#ifdef OGIVE_X86
  if (isa == "avx512") return avx512_edge_table();
  if (isa == "avx2") return avx2_edge_table();
#endif
  if (isa == "baseline") return baseline_edge_table();
  throw std::invalid_argument("unknown instruction set " + isa);
}

const EdgeEntry& find(const std::string& isa, std::string_view name) {
  const EdgeTable table = table_of(isa);
  for (int i = 0; i < table.count; ++i)
    if (table.entries[i].name == name) return table.entries[i];
  throw std::invalid_argument("no compiled weight function over edges: " + std::string(name));
}

constexpr int kNumbers = 11, kIndices = 6, kRows = 20, kReals = 4;

EdgeProblem read(const std::vector<int64_t>& n, const std::vector<double>& reals) {
  if (n.size() != kNumbers + kIndices + 3 * kRows || reals.size() != kReals)
    throw std::invalid_argument("wrong number of numbers");
  EdgeProblem p;
  int64_t* sizes[kNumbers] = {&p.targets,     &p.sources, &p.edges, &p.heads, &p.width,
                              &p.value_width, &p.threads, &p.act,   &p.hides, &p.seed,
                              &p.apart};
  for (int i = 0; i < kNumbers; ++i) *sizes[i] = n[i];
  const int64_t* from = n.data() + kNumbers;
  p.target_start = reinterpret_cast<const int64_t*>(from[0]);
  p.source_start = reinterpret_cast<const int64_t*>(from[1]);
  const int32_t** orders[] = {&p.order, &p.source, &p.by_source, &p.target};
  for (int i = 0; i < 4; ++i) *orders[i] = reinterpret_cast<const int32_t*>(from[2 + i]);
  from += kIndices;
  EdgeRows* rows[kRows] = {
      &p.query,      &p.key,           &p.value,           &p.query_weight,
      &p.key_weight, &p.out,           &p.constant,        &p.bias,
      &p.vectors,    &p.grad_out,      &p.grad_query,      &p.grad_key,
      &p.grad_value, &p.grad_bias,     &p.grad_vectors,    &p.grad_constant,
      &p.grad_query_weight, &p.grad_key_weight, &p.weights, &p.slopes};
  for (int r = 0; r < kRows; ++r, from += 3)
    *rows[r] = {reinterpret_cast<void*>(from[0]), from[1], from[2]};
  p.scale = reals[0];
  p.cap = reals[1];
  p.act_constant = reals[2];
  p.dropout = reals[3];
  return p;
}

void run_edges(const std::string& isa, const std::string& name, bool wide, bool back,
               const std::vector<int64_t>& numbers, const std::vector<double>& reals) {
  const EdgeEntry& entry = find(isa, name);
  const EdgeProblem problem = read(numbers, reals);
  nb::gil_scoped_release release;
  (back ? entry.backward : entry.forward)[wide](problem);
}

std::vector<std::string> edge_names() {
  std::vector<std::string> found;
  const EdgeTable table = baseline_edge_table();
  for (int i = 0; i < table.count; ++i) found.emplace_back(table.entries[i].name);
  return found;
}

// Sorts by counting, stable: `start` (nodes + 1) and the places of `order`.
template <class End>
void sort_by(const End* ends, int64_t edges, int64_t nodes, int64_t* start, int32_t* order) {
  std::vector<int64_t> next(nodes + 1, 0);
  for (int64_t e = 0; e < edges; ++e) ++next[ends[e] + 1];
  for (int64_t i = 0; i < nodes; ++i) next[i + 1] += next[i];
  std::copy(next.begin(), next.end(), start);
  for (int64_t e = 0; e < edges; ++e) order[next[ends[e]]++] = int32_t(e);
}

// Fills what an EdgeList holds. Rows of edge_index are contiguous and in range.
void sort_edges(const std::vector<int64_t>& n) {
  if (n.size() != 11) throw std::invalid_argument("wrong number of numbers");
  const int64_t edges = n[0], sources = n[1], targets = n[2];
  const auto* from = reinterpret_cast<const int64_t*>(n[3]);
  const auto* to = reinterpret_cast<const int64_t*>(n[4]);
  auto* order = reinterpret_cast<int32_t*>(n[5]);
  auto* source = reinterpret_cast<int32_t*>(n[6]);
  auto* target_start = reinterpret_cast<int64_t*>(n[7]);
  auto* by_source = reinterpret_cast<int32_t*>(n[8]);
  auto* target = reinterpret_cast<int32_t*>(n[9]);
  auto* source_start = reinterpret_cast<int64_t*>(n[10]);
  nb::gil_scoped_release release;
  sort_by(to, edges, targets, target_start, order);
  for (int64_t e = 0; e < edges; ++e) source[e] = int32_t(from[order[e]]);
  sort_by(source, edges, sources, source_start, by_source);
  for (int64_t e = 0; e < edges; ++e) target[e] = int32_t(to[order[by_source[e]]]);
}

// Whether every number is finite and of at most this size.
bool all_within(const std::string& isa, int64_t address, int64_t n, bool wide, double limit) {
  const EdgeTable table = table_of(isa);
  nb::gil_scoped_release release;
  if (wide) return table.wide_within(reinterpret_cast<const double*>(address), n, limit);
  return table.narrow_within(reinterpret_cast<const float*>(address), n, float(limit));
}

}  // namespace

void bind_edges(nb::module_& m) {
  m.def("run_edges", &run_edges);
  m.def("edge_names", &edge_names);
  m.def("sort_edges", &sort_edges);
  m.def("all_within", &all_within);
}

}  // namespace ogive
