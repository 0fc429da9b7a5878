// Whole blocks from one place of a layer's cache to another.
#include "common/basics.h"

struct CopyParams {
  uint words;  // 16-byte words of a block
};

// copies: (from, to) block numbers. Threadgroup (x, i): its share of copy i. Copies of one launch must not depend on
// each other.
KERNEL(256)
copy_blocks(device const uint2* copies [[buffer(0)]],
            device uint4* cache [[buffer(1)]],
            constant CopyParams& p [[buffer(2)]],
            uint2 tg [[threadgroup_position_in_grid]],
            uint2 groups [[threadgroups_per_grid]],
            uint tid [[thread_index_in_threadgroup]],
            uint2 threads [[threads_per_threadgroup]]) {
  const uint2 c = copies[tg.y];
  for (uint i = tg.x * threads.x + tid; i < p.words; i += groups.x * threads.x) {
    cache[ulong(c.y) * p.words + i] = cache[ulong(c.x) * p.words + i];
  }
}
