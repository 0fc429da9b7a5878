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

// The inverse of a power of two.
INLINE float inverse_of(float power) { return as_type<float>(0x7f000000u - as_type<uint>(power)); }

// An element of a product, from the sum of its terms. `row`: of the weight.
INLINE float product_of(float sum, float unit, bool biased, device const float* bias, uint row) {
  return sum * inverse_of(unit) + (biased ? bias[row] : 0.0f);
}
INLINE float gated_by(float gate, float x) { return gate / (1.0f + exp(-gate)) * x; }
