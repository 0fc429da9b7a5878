// Rows that are chosen by number.
#include "common/basics.h"

struct RowsParams {
  uint width;
};

// out[i] = x[rows[i]]. Grid: 256 elements of a row i.
KERNEL(256)
gather_rows(device const float* x [[buffer(0)]],
            device const uint* rows [[buffer(1)]],
            device float* out [[buffer(2)]],
            constant RowsParams& p [[buffer(3)]],
            uint2 at [[threadgroup_position_in_grid]],
            uint tid [[thread_index_in_threadgroup]]) {
  const uint i = at.x * 256 + tid;
  if (i < p.width) out[ulong(at.y) * p.width + i] = x[ulong(rows[at.y]) * p.width + i];
}
