// A gate times another row.
#include "common/basics.h"

struct GateParams {
  uint count;
  uint silu;  // silu of the gate, else its sigmoid
  uint span;  // elements of x that an element of the gate meets
};

// out = silu(gate) x, or sigmoid(gate) x, with one gate for each `span` elements.
KERNEL(256)
gate_mul(device const float* gate [[buffer(0)]],
         device const float* x [[buffer(1)]],
         device float* out [[buffer(2)]],
         constant GateParams& p [[buffer(3)]],
         uint i [[thread_position_in_grid]]) {
  if (i >= p.count) return;
  const float g = gate[i / p.span];
  out[i] = (p.silu ? g : 1.0f) / (1.0f + exp(-g)) * x[i];
}
