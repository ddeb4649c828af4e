// The Python module: names, numbers and addresses in, nothing of torch.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "edge_binding.h"
#include "table.h"

namespace nb = nanobind;

namespace ogive {

void bind_linear(nb::module_&);

namespace {

Table table_of(const std::string& isa) {
#ifdef OGIVE_X86
  if (isa == "avx512") return avx512_table();
  if (isa == "avx2") return avx2_table();
#endif
  if (isa == "baseline") return baseline_table();
  throw std::invalid_argument("unknown instruction set " + isa);
}

std::vector<std::string> supported() {
  std::vector<std::string> found{"baseline"};
#ifdef OGIVE_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.push_back("avx2");
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
    found.push_back("avx512");
#endif
  return found;
}

const Entry& find(const std::string& isa, std::string_view name) {
  const Table table = table_of(isa);
  for (int i = 0; i < table.count; ++i)
    if (table.entries[i].name == name) return table.entries[i];
  throw std::invalid_argument("no compiled weight function " + std::string(name));
}

constexpr int kViews = 17;
constexpr int kNumbers = 12;

Problem read(const std::vector<int64_t>& n, const std::vector<double>& reals) {
  if (n.size() != kNumbers + 5 * kViews) throw std::invalid_argument("wrong number of numbers");
  Problem p;
  int64_t* sizes[] = {&p.batch, &p.heads, &p.shared,      &p.queries, &p.keys,
                      &p.width, &p.value_width, &p.left, &p.right,   &p.threads, &p.act, &p.seed};
  for (int i = 0; i < kNumbers; ++i) *sizes[i] = n[i];
  if (reals.size() != 4) throw std::invalid_argument("wrong number of reals");
  p.scale = reals[0];
  p.cap = reals[1];
  p.act_constant = reals[2];
  p.dropout = reals[3];
  View* all[kViews] = {&p.query,    &p.key, &p.value, &p.out,      &p.mask,
                           &p.bias,     &p.offset, &p.constant, &p.lse, &p.delta,
                           &p.grad_out, &p.vectors, &p.grad_query, &p.grad_key, &p.grad_value,
                           &p.grad_bias, &p.grad_vectors};
  for (int v = 0; v < kViews; ++v) {
    const int64_t* from = n.data() + kNumbers + 5 * v;
    all[v]->data = reinterpret_cast<void*>(from[0]);
    for (int axis = 0; axis < 4; ++axis) all[v]->stride[axis] = from[1 + axis];
  }
  return p;
}

void run(const std::string& isa, const std::string& name, bool wide, bool back,
         const std::vector<int64_t>& numbers, const std::vector<double>& reals) {
  const Entry& entry = find(isa, name);
  const Problem problem = read(numbers, reals);
  nb::gil_scoped_release release;
  (back ? entry.backward : entry.forward)[wide](problem);
}

double multiply_adds(const std::string& isa, int64_t steps, int64_t threads) {
  nb::gil_scoped_release release;
#ifdef OGIVE_X86
  if (isa == "avx512") return avx512_multiply_adds(steps, threads);
  if (isa == "avx2") return avx2_multiply_adds(steps, threads);
#endif
  if (isa == "baseline") return baseline_multiply_adds(steps, threads);
  throw std::invalid_argument("unknown instruction set " + isa);
}

std::vector<std::string> names() {
  std::vector<std::string> found;
  const Table table = baseline_table();
  for (int i = 0; i < table.count; ++i) found.emplace_back(table.entries[i].name);
  return found;
}

}  // namespace
}  // namespace ogive

NB_MODULE(_native, m) {
  m.def("run", &ogive::run);
  m.def("multiply_adds", &ogive::multiply_adds);
  m.def("names", &ogive::names);
  m.def("supported", &ogive::supported);
  ogive::bind_linear(m);
  ogive::bind_edges(m);
}
