// All loops of one instruction set; compiled once for each, with OGIVE_ISA and its flags.
#include "additive_backward.h"
#include "additive_forward.h"
#include "backward.h"
#include "delta.h"
#include "forward.h"
#include "sparse.h"
#include "table.h"

#define OGIVE_JOIN_(a, b) a##b
#define OGIVE_JOIN(a, b) OGIVE_JOIN_(a, b)

namespace ogive {
namespace {

namespace here = OGIVE_ISA;

// Additive scores have loops of their own.
template <class T, class Weigh>
void forward(const Problem& p) {
  p.act ? here::additive_forward<T, Weigh>(p) : here::forward<T, Weigh>(p);
}
template <class T, class Slope>
void backward(const Problem& p) {
  here::add_delta<T>(p);
  p.act ? here::additive_backward<T, Slope>(p) : here::backward<T, Slope>(p);
}

template <class Curve>
constexpr Entry each(std::string_view name) {
  return {name,
          {forward<float, here::Elementwise<float, Curve>>,
           forward<double, here::Elementwise<double, Curve>>},
          {backward<float, here::ElementwiseSlope<float, Curve>>,
           backward<double, here::ElementwiseSlope<double, Curve>>}};
}

template <class Shape>
constexpr Entry shared(std::string_view name) {
  return {name,
          {forward<float, here::SharedRows<float, Shape>>,
           forward<double, here::SharedRows<double, Shape>>},
          {backward<float, here::SharedSlope<float, Shape>>,
           backward<double, here::SharedSlope<double, Shape>>}};
}

template <class Shape>
constexpr Entry sparse(std::string_view name) {
  return {name,
          {here::sparse_forward<float, Shape>, here::sparse_forward<double, Shape>},
          {here::sparse_backward<float, Shape>, here::sparse_backward<double, Shape>}};
}

constexpr Entry entries[] = {
    each<here::Gelu>("gelu"),           each<here::Identity>("identity"),
    each<here::Relu>("relu"),           each<here::Relu2>("relu2"),
    each<here::Sigmoid>("sigmoid"),     each<here::Silu>("silu"),
    each<here::Softplus>("softplus"),   each<here::Tanh>("tanh"),
    shared<here::CogShape>("cog"),      shared<here::LinearShape>("linear"),
    shared<here::SoftmaxShape>("softmax"), shared<here::SoftpickShape>("softpick"),
    sparse<here::Entmax15Shape>("entmax15"), sparse<here::SparsemaxShape>("sparsemax"),
};

}  // namespace

Table OGIVE_JOIN(OGIVE_ISA, _table)() { return {entries, int(sizeof(entries) / sizeof(Entry))}; }

}  // namespace ogive
