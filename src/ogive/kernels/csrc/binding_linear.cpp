// Linear attention's entry of the Python module: numbers and addresses in, peaks out.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "linear.h"

namespace nb = nanobind;

namespace ogive {
namespace {

LinearTable linear_of(const std::string& isa) {
#ifdef OGIVE_X86
  if (isa == "avx512") return avx512_linear();
  if (isa == "avx2") return avx2_linear();
#endif
  if (isa == "baseline") return baseline_linear();
  throw std::invalid_argument("unknown instruction set " + isa);
}

// Expanded features may be more than any memory: the state of a head must be countable.
void must_fit(const LinearProblem& p) {
  if (double(p.width + 64) * double(p.value_width + 64) > 0x1p50) throw std::bad_alloc();
}

std::vector<double> linear(const std::string& isa, bool wide, bool back,
                           const std::vector<int64_t>& numbers, double scale) {
  std::vector<double> peaks(4, 0.0);
  LinearProblem p;
  p.scale = scale;
  p.peaks = peaks.data();
  int64_t* sizes[] = {&p.batch,       &p.heads,   &p.shared, &p.queries,   &p.keys,   &p.width,
                      &p.value_width, &p.bounded, &p.right,  &p.normalise, &p.threads};
  View* views[] = {&p.query, &p.key,   &p.value,    &p.mask,       &p.offset,   &p.constant,
                   &p.out,   &p.total, &p.grad_out, &p.grad_query, &p.grad_key, &p.grad_value};
  if (numbers.size() != std::size(sizes) + 5 * std::size(views))
    throw std::invalid_argument("wrong number of numbers");
  auto next = numbers.begin();
  for (int64_t* size : sizes) *size = *next++;
  for (View* view : views) {
    view->data = reinterpret_cast<void*>(*next++);
    for (int64_t& stride : view->stride) stride = *next++;
  }
  must_fit(p);
  const LinearTable table = linear_of(isa);
  nb::gil_scoped_release release;
  (back ? table.backward : table.forward)[wide](p);
  return peaks;
}

}  // namespace

void bind_linear(nb::module_& m) { m.def("linear", &linear); }

}  // namespace ogive
