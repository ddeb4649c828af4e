// The Python module: names, numbers and tensors in, nothing of torch linked.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "edge_binding.h"
#include "exchange.h"
#include "table.h"

namespace nb = nanobind;

extern const char* const ogive_sources;  // in a file that CMake makes

namespace ogive {

void bind_linear(nb::module_&);
void bind_maps(nb::module_&);

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

constexpr int kViews = 17, kSizes = 14, kReals = 4;

void read_sizes(nb::tuple numbers, Problem& p) {
  if (numbers.size() != kSizes) throw std::invalid_argument("wrong number of numbers");
  int64_t* sizes[kSizes] = {&p.batch, &p.heads, &p.shared, &p.queries, &p.keys, &p.width,
                            &p.value_width, &p.left, &p.right, &p.threads, &p.act, &p.seed,
                            &p.apart, &p.bias_once};
  for (int i = 0; i < kSizes; ++i) *sizes[i] = nb::cast<int64_t>(numbers[i]);
}

void read_reals(nb::tuple reals, Problem& p) {
  if (reals.size() != kReals) throw std::invalid_argument("wrong number of reals");
  double* all[kReals] = {&p.scale, &p.cap, &p.act_constant, &p.dropout};
  for (int i = 0; i < kReals; ++i) *all[i] = nb::cast<double>(reals[i]);
}

void read_views(nb::tuple tensors, Problem& p) {
  if (tensors.size() != kViews) throw std::invalid_argument("wrong number of tensors");
  View* all[kViews] = {&p.query, &p.key, &p.value, &p.out, &p.mask, &p.bias, &p.offset,
                       &p.constant, &p.lse, &p.delta, &p.grad_out, &p.vectors, &p.grad_query,
                       &p.grad_key, &p.grad_value, &p.grad_bias, &p.grad_vectors};
  for (int v = 0; v < kViews; ++v) *all[v] = view_of(tensors[v]);
}

// Expanded keys may be more than any memory: what a thread holds of a head must be countable.
void must_fit(const Problem& p) {
  const double longest = double(std::max(p.queries, p.keys)), group = double(p.heads) / p.shared;
  if (longest * double(std::max(p.width, p.value_width) + 64) * group > 0x1p50)
    throw std::bad_alloc();
}

// A second thread is worth its waking from about a tenth of a millisecond of work on.
void limit_threads(Problem& p) {
  const double pairs = double(p.batch) * p.heads * p.queries * p.keys;
  const double worth = 1 + pairs * (p.width + p.value_width) * (p.act ? 16 : 1) / (1 << 21);
  if (worth < double(p.threads)) p.threads = int64_t(worth);
}

// Runs the loops; whether a number was read that is not finite, or whose products may overflow.
bool run(const std::string& isa, const std::string& name, bool wide, bool back, nb::tuple tensors,
         nb::tuple sizes, nb::tuple reals) {
  const Entry& entry = find(isa, name);
  Problem problem;
  read_sizes(sizes, problem);
  read_reals(reals, problem);
  read_views(tensors, problem);
  must_fit(problem);
  limit_threads(problem);
  bool wild = false;
  problem.wild = &wild;
  nb::gil_scoped_release release;
  (back ? entry.backward : entry.forward)[wide](problem);
  return wild;
}

// Whether four tensors are queries, keys, values and outputs with nothing unusual.
bool plain(const Seen& query, const Seen& key, const Seen& value, const Seen& out, bool causal,
           bool grouped) {
  for (const Seen* one : {&query, &key, &value, &out}) {
    if (one->axes != 4 || !one->real || !one->on_cpu || one->bits != query.bits ||
        one->view.kind != query.view.kind)
      return false;
    for (int64_t size : one->size)
      if (!size) return false;
  }
  for (int axis : {0, 3})
    if (key.size[axis] != query.size[axis]) return false;
  for (int axis : {0, 1, 2})
    if (key.size[axis] != value.size[axis] || query.size[axis] != out.size[axis]) return false;
  if (key.size[1] != query.size[1] && (!grouped || query.size[1] % key.size[1])) return false;
  return value.size[3] == out.size[3] && (!causal || query.size[2] == key.size[2]);
}

// A call without masks, dropout or anything else but causality. scale 0 is 1/√width.
struct Plain {
  Problem p{};
  bool wide = false, fits = false;

  Plain(nb::handle query, nb::handle key, nb::handle value, nb::handle constant, nb::handle out,
        bool causal, bool grouped, double scale, int64_t threads) {
    Seen q, k, v, o;
    fits = look(query, q) && look(key, k) && look(value, v) && look(out, o) &&
           plain(q, k, v, o, causal, grouped);
    if (!fits) return;
    p.batch = q.size[0], p.heads = q.size[1], p.shared = k.size[1], p.queries = q.size[2];
    p.keys = k.size[2], p.width = q.size[3], p.value_width = v.size[3];
    p.left = -1, p.right = causal ? 0 : -1;
    p.scale = scale ? scale : 1 / std::sqrt(double(p.width));
    p.threads = threads;
    p.query = q.view, p.key = k.view, p.value = v.view, p.out = o.view;
    p.constant = view_of(constant);
    wide = q.bits == 64;
    must_fit(p);
    limit_threads(p);
  }
};

// Runs `loops` of a plain call; whether a number was wild.
bool run_plain(Plain& call, const Run (&loops)[2]) {
  bool wild = false;
  call.p.wild = &wild;
  nb::gil_scoped_release release;
  loops[call.wide](call.p);
  return wild;
}

// Fills `out`, and `lse` where it is given. "ran", "wild" where what was written may be wrong, or
// "unfit" where the tensors are unusual: Python then takes the long way.
const char* attend(const std::string& isa, const std::string& name, nb::handle query,
                   nb::handle key, nb::handle value, nb::handle constant, nb::handle out,
                   nb::handle lse, bool causal, bool grouped, double scale, int64_t threads) {
  Plain call(query, key, value, constant, out, causal, grouped, scale, threads);
  if (!call.fits) return "unfit";
  call.p.lse = view_of(lse);
  return run_plain(call, find(isa, name).forward) ? "wild" : "ran";
}

// Fills the three gradients from what `attend` left; whether a number was wild.
bool attend_back(const std::string& isa, const std::string& name, nb::tuple inputs, nb::handle out,
                 nb::handle lse, nb::handle grad_out, nb::tuple grads, bool causal, double scale,
                 int64_t threads) {
  Plain call(inputs[0], inputs[1], inputs[2], inputs[3], out, causal, true, scale, threads);
  Seen grad;
  if (!call.fits || !look(grad_out, grad) || grad.view.kind != call.p.out.kind)
    throw std::invalid_argument("these tensors do not fit each other");
  Problem& p = call.p;
  p.grad_out = grad.view;
  View* filled[] = {&p.grad_query, &p.grad_key, &p.grad_value};
  for (int i = 0; i < 3; ++i) *filled[i] = view_of(grads[i]);
  std::vector<double> delta;  // room for one number of either type for each row
  if (!lse.is_none()) {
    p.lse = view_of(lse);
    delta.resize(p.batch * p.heads * p.queries);
    p.delta.data = delta.data();
    const int64_t strides[] = {p.heads * p.queries, p.queries, 1};
    std::copy(strides, strides + 3, p.delta.stride);
  }
  return run_plain(call, find(isa, name).backward);
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
  m.def("use_exchange", &ogive::use_exchange);
  m.def("attend", &ogive::attend, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("attend_back", &ogive::attend_back, nb::arg(), nb::arg(), nb::arg(), nb::arg(),
        nb::arg().none(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg());
  m.def("multiply_adds", &ogive::multiply_adds);
  m.def("names", &ogive::names);
  m.def("supported", &ogive::supported);
  m.attr("sources") = ogive_sources;
  ogive::bind_linear(m);
  ogive::bind_maps(m);
  ogive::bind_edges(m);
}
