// Attention over edges for one instruction set; compiled once for each, with OGIVE_ISA and its flags.
#include "edge_backward.h"

#define OGIVE_JOIN_(a, b) a##b
#define OGIVE_JOIN(a, b) OGIVE_JOIN_(a, b)

namespace ogive {
namespace {

namespace here = OGIVE_ISA;

template <template <class, class> class Weight, class Part>
constexpr EdgeEntry entry(std::string_view name) {
  return {name,
          {here::edge::edge_forward<float, Weight<float, Part>>,
           here::edge::edge_forward<double, Weight<double, Part>>},
          {here::edge::edge_backward<float, Weight<float, Part>>,
           here::edge::edge_backward<double, Weight<double, Part>>}};
}

constexpr EdgeEntry entries[] = {
    entry<here::edge::EachEdge, here::Gelu>("gelu"),
    entry<here::edge::EachEdge, here::Identity>("identity"),
    entry<here::edge::EachEdge, here::Relu>("relu"),
    entry<here::edge::EachEdge, here::Relu2>("relu2"),
    entry<here::edge::EachEdge, here::Sigmoid>("sigmoid"),
    entry<here::edge::EachEdge, here::Silu>("silu"),
    entry<here::edge::EachEdge, here::Softplus>("softplus"),
    entry<here::edge::EachEdge, here::Tanh>("tanh"),
    entry<here::edge::SparseEdges, here::Entmax15Shape>("entmax15"),
    entry<here::edge::SparseEdges, here::SparsemaxShape>("sparsemax"),
    entry<here::edge::SharedEdges, here::CogShape>("cog"),
    entry<here::edge::SharedEdges, here::LinearShape>("linear"),
    entry<here::edge::SharedEdges, here::SoftmaxShape>("softmax"),
    entry<here::edge::SharedEdges, here::SoftpickShape>("softpick"),
};

}  // namespace

EdgeTable OGIVE_JOIN(OGIVE_ISA, _edge_table)() {
  return {entries, int(sizeof(entries) / sizeof(EdgeEntry)), here::edge::within<float>,
          here::edge::within<double>};
}

}  // namespace ogive
