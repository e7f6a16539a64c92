// What both attentions add to the scores, and which keys a query sees.
#pragma once
#include "device.cuh"

enum BiasKind { NO_BIAS, SLOPES, TABLE };

constexpr float LOG2_E = 1.4426950408889634f;

// The scores of one head, on the scale of powers of two, which a GPU computes fastest.
struct Scores {
  float scale;       // log2 e times the factor on q k^T
  int kind;          // BiasKind
  const float *bias; // the head's slope, or its numbers by distance
  int middle;        // the index of distance 0
  int left, right;   // a query sees keys from `left` before it to `right` after it

  __device__ Scores(float scale, int kind, const float *bias, int width, int left, int right, int head)
      : scale(scale * LOG2_E), kind(kind), bias(bias + (kind == TABLE ? (size_t)head * width : kind == SLOPES ? head : 0)),
        middle((width - 1) / 2), left(left), right(right) {}

  __device__ bool sees(int query, int key) const { return key >= query - left && key <= query + right; }

  __device__ float of(float product, int query, int key) const {
    float score = product * scale;
    if (kind == SLOPES)
      score -= *bias * LOG2_E * (float)abs(key - query);
    if (kind == TABLE)
      score += bias[key - query + middle] * LOG2_E;
    return score;
  }
};

// Some queries of one text.
struct Tile {
  int start; // the text's first row
  int len;   // its tokens
  int first; // the first query, counted in the text

  __device__ explicit Tile(const int *tiles) : start(tiles[3 * blockIdx.x]), len(tiles[3 * blockIdx.x + 1]), first(tiles[3 * blockIdx.x + 2]) {}
};
