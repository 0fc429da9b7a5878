// What kernels of products are told, and what becomes of the products.
#pragma once
#include "common/basics.h"

struct ProductParams {
  uint n0;  // rows of the weights
  uint n1;
  uint n2;
  uint rows;
  uint groups;           // of 32 elements in a row
  uint row_bytes;        // of a weight
  uint partition_shift;  // log2 of the partitions
  uint biased;           // bit i: weight i has a bias
  uint form;             // a ProductForm
  float unit0;           // what a bf16 weight is multiplied by
  float unit1;
  float unit2;
  uint by_expert;  // whether each weight is a stack of experts' weights, and `experts` tells those of the rows of x
};

// What becomes of the products of the rows with the weights.
enum ProductForm : uint {
  kEach,   // those with up to three weights go to an output each
  kOnto,   // that with one weight is added to `residual`
  kGated,  // the silu of that with the first is multiplied by that with the second
};

// A tile of R rows of the weights or, where one weight gates, of half as many of either. Tiles of the weights follow
// each other; behind the last there is none, and the place is that of the last.
struct TilePlace {
  bool is_there;
  uint which;  // of the weights; the first where one gates
  uint n;      // its rows
  uint row;    // the tile's first
  uint rows;   // of a tile
};
template <uint R>
INLINE TilePlace tile_place(constant ProductParams& p, uint tile) {
  const bool gated = p.form == kGated;
  const uint tiles0 = gated ? (p.n0 + R / 2 - 1) / (R / 2) : (p.n0 + R - 1) / R;
  const uint tiles1 = gated ? 0 : (p.n1 + R - 1) / R, tiles2 = (p.n2 + R - 1) / R;
  const uint tiles = tiles0 + tiles1 + tiles2;
  TilePlace to;
  to.is_there = tile < tiles;
  tile = min(tile, tiles - 1);
  const uint which = tile < tiles0 ? 0 : tile < tiles0 + tiles1 ? 1 : 2;
  to.which = which;
  to.n = which == 0 ? p.n0 : which == 1 ? p.n1 : p.n2;
  to.rows = gated ? R / 2 : R;
  to.row = (tile - (which == 0 ? 0 : which == 1 ? tiles0 : tiles0 + tiles1)) * to.rows;
  return to;
}

// The inverse of a power of two.
INLINE float inverse_of(float power) { return as_type<float>(0x7f000000u - as_type<uint>(power)); }

// An element of a product, from the sum of its terms. `row`: of the weight.
INLINE float product_of(float sum, float unit, bool biased, device const float* bias, uint row) {
  return sum * inverse_of(unit) + (biased ? bias[row] : 0.0f);
}
INLINE float gated_by(float gate, float x) { return gate / (1.0f + exp(-gate)) * x; }
