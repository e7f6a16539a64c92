// Norm and rotation of queries and keys in place, a warp per token and head; all of it in f32, the angles too.
#include "device.cuh"

constexpr int HEADS_PER_BLOCK = 4;

// The norm of one head, in a warp's registers: MOST numbers of a lane, those at `lane + 32 i`.
template <typename T, int MOST> __device__ void norm_head(float (&x)[MOST], const T *weight, const T *bias, int dim, int rms, float eps) {
  const int lane = threadIdx.x % WARP;
  float total = 0.0f, squares = 0.0f;
#pragma unroll
  for (int i = 0; i < MOST; i++)
    total += x[i];
  const float mean = rms ? 0.0f : warp_sum(total) / (float)dim;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const float far = lane + i * WARP < dim ? x[i] - mean : 0.0f;
    squares += far * far;
  }
  const float scale = 1.0f / sqrtf(warp_sum(squares) / (float)dim + eps);
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const int at = lane + i * WARP;
    if (at < dim)
      x[i] = (x[i] - mean) * scale * to_float(weight[at]) + (bias ? to_float(bias[at]) : 0.0f);
  }
}

// Rows of x lie `stride` numbers apart, heads `dim`. The first `queries` of `heads` heads take the norm of queries, the rest that of keys; absent
// weights: no norm. Then the leading `2 pairs` numbers of each head are turned by row `places[token]` of the tables, `[., pairs]`.
template <typename T, int MOST>
__device__ void norm_rotate(T *x, const T *q_weight, const T *q_bias, const T *k_weight, const T *k_bias, const float *cos, const float *sin,
                            const uint32_t *places, int tokens, int stride, int heads, int queries, int dim, int pairs, int neighbours,
                            int rms, float q_eps, float k_eps) {
  SHARED(memory);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int64_t index = (int64_t)blockIdx.x * HEADS_PER_BLOCK + warp;
  if (index >= (int64_t)tokens * heads)
    return;
  const int token = (int)(index / heads), head = (int)(index % heads);
  float *row = reinterpret_cast<float *>(memory) + warp * dim;
  x += (int64_t)token * stride + (int64_t)head * dim;
  float numbers[MOST];
#pragma unroll
  for (int i = 0; i < MOST; i++)
    numbers[i] = lane + i * WARP < dim ? to_float(x[lane + i * WARP]) : 0.0f;
  const T *weight = head < queries ? q_weight : k_weight;
  if (weight)
    norm_head<T, MOST>(numbers, weight, head < queries ? q_bias : k_bias, dim, rms, head < queries ? q_eps : k_eps);
#pragma unroll
  for (int i = 0; i < MOST; i++)
    if (lane + i * WARP < dim)
      row[lane + i * WARP] = numbers[i];
  __syncwarp();
  const int64_t angles = pairs > 0 ? (int64_t)places[token] * pairs : 0;
#pragma unroll
  for (int i = 0; i < MOST; i++) {
    const int at = lane + i * WARP;
    if (at >= dim)
      continue;
    float number = row[at];
    if (at < 2 * pairs) {
      const int pair = neighbours ? at / 2 : at % pairs;
      const bool second = neighbours ? at % 2 : at >= pairs;
      const float other = row[neighbours ? at ^ 1 : second ? at - pairs : at + pairs];
      number = number * cos[angles + pair] + (second ? other : -other) * sin[angles + pair];
    }
    round_to(x[at], number);
  }
}

#define NORM_ROTATE(T, D)                                                                                                                    \
  extern "C" __global__ void norm_rotate_##T##_##D(T *x, const T *q_weight, const T *q_bias, const T *k_weight, const T *k_bias,             \
                                                   const float *cos, const float *sin, const uint32_t *places, int tokens, int stride,       \
                                                   int heads, int queries, int dim, int pairs, int neighbours, int rms, float q_eps,         \
                                                   float k_eps) {                                                                            \
    norm_rotate<T, D / WARP>(x, q_weight, q_bias, k_weight, k_bias, cos, sin, places, tokens, stride, heads, queries, dim, pairs,            \
                             neighbours, rms, q_eps, k_eps);                                                                                 \
  }                                                                                                                                          \
  KERNEL(norm_rotate_##T##_##D)

NORM_ROTATE(f32, 128)
NORM_ROTATE(f32, 256)
NORM_ROTATE(bf16, 128)
NORM_ROTATE(bf16, 256)
NORM_ROTATE(f16, 128)
NORM_ROTATE(f16, 256)
