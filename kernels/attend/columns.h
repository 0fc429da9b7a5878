// Who attends to what. A tile is some rows of one sequence; its columns are (row, query head) of one kv head, in
// octets.
#pragma once
#include "common/formats.h"

struct Tile {
  uint row;  // first row of the batch
  uint rows;
  uint table;     // where the sequence's blocks start in `tables`
  uint position;  // of the first row in its sequence
  uint first;     // first position that some row sees
  uint unused;    // a tile is read as three pairs
};
// In pairs, so that all of it is there at once.
INLINE Tile load_tile(device const Tile* tiles, uint i) {
  static_assert(sizeof(Tile) == 24, "three pairs");
  device const uint2* from = (device const uint2*)(tiles + i);
  const uint2 x = from[0], y = from[1], z = from[2];
  Tile t;
  t.row = x.x;
  t.rows = x.y;
  t.table = y.x;
  t.position = y.y;
  t.first = z.x;
  t.unused = z.y;
  return t;
}
// Whether partitions before `to` have tokens that a window which begins at position `first` leaves visible.
INLINE bool in_window(uint to, uint first) { return !kWindowed || to * kPartition > first; }
// Whether some row of the tile sees tokens of partitions from `from` to `to`.
INLINE bool sees(Tile t, uint from, uint to) {
  return from * kPartition < t.position + t.rows && in_window(to, t.first);
}
INLINE bool sees(Tile t, uint part) { return sees(t, part, part + 1); }

// Whether the correction of centred keys is exact (`mean_correction.h`), in place of high-frequency pairs and
// quadratics.
constant bool kKeysExact [[function_constant(8)]];
INLINE bool keys_exact() { return kKeysCentred && kKeysExact; }
INLINE bool keys_fitted() { return kKeysCentred && !kKeysExact; }

// A partition's record in `corrections`: [place][A of columns 2c, 2c + 1, B of both], r the high-frequency pair; then
// [interval][term][8 columns] floats, and in the last kFirstFloats of the first partition's what the logit of position
// 0 lacks beyond the rest, of each column. Where `attend_mma` and `prefill` add quadratics a term has halves in as much
// place: [pair of columns][high parts, low parts].
// Coefficients of 1, v, v^2 of quadratics, and of 1, v .. v^7 of the polynomials that correct exactly.
enum Terms : uint { kFewTerms = 3, kTerms = 8 };
enum CorrectionFloats : uint { kHighFloats = 128, kQuadratic = 8 * kFewTerms, kFirstFloats = 8 };
// In units of 16 tokens, from the middle of 32.
INLINE float v_of(uint token) { return (float(token) - 15.5f) * 0.0625f; }
// (cos, sin) of a kv head's 8 high-frequency pairs in `high_angles`: at 64 multiples of 8 tokens, then at 0 to 7
// tokens.
enum HighAngles : uint { kHighAngles = 64, kAnglesOfHead = 72 * 8 };

// Weights are relative to a maximum that moves once a logit, base 2, is so far above it: sums are rarely rescaled.
constant constexpr float kGrowth = 8.0f;

struct AttendParams {
  uint octets;             // column octets of a tile
  uint partitions;         // partitions in the state and in `corrections`
  uint window;             // a row sees at most so many positions, itself included
  float scale;             // of logits, base 2
  uint first;              // partition of the grid's first
  uint pair_groups;        // groups of 8 high-frequency pairs
  uint correction_stride;  // floats of a partition in `corrections`
};

// The number of the partial state of a column of a tile in a partition; kDead for a column without a row.
constant constexpr uint kDead = 0xffffffffu;
INLINE uint state_of(Tile tile, uint column, uint head, uint part, constant AttendParams& p) {
  const uint row = column / kGqaGroup;
  return row < tile.rows ? (((tile.row + row) * kKvHeads + head) * kGqaGroup + column % kGqaGroup) * p.partitions + part
                         : kDead;
}

// Whether all rows of the tile see all of `count` positions.
INLINE bool all_see(Tile t, uint position, uint count, constant AttendParams& p) {
  return position + count <= t.position + 1 && (!kWindowed || position + p.window >= t.position + t.rows);
}
