// The sequences of a step, as recurrent layers read them.
#pragma once
#include "common/basics.h"

struct Sequence {
  uint first, rows;  // the rows of the step that are its
  uint slot;         // where its states lie
  bool starts;       // whether these are its first tokens, so that the slot's content is another sequence's
};
// sequences: for each one first row, rows, slot, and 1 where it starts.
INLINE Sequence sequence_at(device const uint4* sequences, uint i) {
  const uint4 s = sequences[i];
  return {s.x, s.y, s.z, s.w != 0};
}

// Input `at` of a channel of the convolution, counted from the oldest that the state holds. The state has the last
// `kept` inputs of the tokens before the step, which are zeros where the sequence starts. `x`: the step's inputs.
INLINE float input_at(
    device const float* x, device const float* state, Sequence s, uint kept, uint channels, uint channel, uint at) {
  if (at >= kept) return x[ulong(s.first + at - kept) * channels + channel];
  return s.starts ? 0.0f : state[ulong(at) * channels + channel];
}
