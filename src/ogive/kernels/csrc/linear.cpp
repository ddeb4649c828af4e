// Linear attention of one instruction set; compiled once for each, with OGIVE_ISA and its flags.
#include "linear_backward.h"
#include "linear_forward.h"

#define OGIVE_JOIN_(a, b) a##b
#define OGIVE_JOIN(a, b) OGIVE_JOIN_(a, b)

namespace ogive {

namespace here = OGIVE_ISA;

LinearTable OGIVE_JOIN(OGIVE_ISA, _linear)() {
  return {{here::over_heads<float, here::LinearForward<float>>,
           here::over_heads<double, here::LinearForward<double>>},
          {here::over_heads<float, here::LinearBackward<float>>,
           here::over_heads<double, here::LinearBackward<double>>}};
}

}  // namespace ogive
