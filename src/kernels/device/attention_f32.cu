// Attention over packed texts in f32 on the ordinary units: four warps per 16 queries of one text and head; a lane is a key while scores are
// computed and a column while values are mixed. For those who want f32, and to judge the faster one by.
#include "scores.cuh"

constexpr int F32_THREADS = 128, F32_QUERIES = 16, F32_KEYS = 32, ROWS_PER_WARP = 4;

template <int D> __device__ void load_f32(float *to, int row_floats, const float *from, int64_t stride, int rows, int most, int dim) {
  for (int i = threadIdx.x; i < most * D; i += F32_THREADS) {
    const int row = i / D, column = i % D;
    to[row * row_floats + column] = row < rows && column < dim ? from[row * stride + column] : 0.0f;
  }
}

// As `attend` in attention_half.cu.
template <int D>
__device__ void attend_f32(float *out, const float *q, const float *k, const float *v, const Tile &tile, const Scores &scores,
                           int64_t out_stride, int64_t q_stride, int64_t k_stride, int64_t v_stride, int dim) {
  SHARED(memory);
  // A key's row is one number longer, so that the keys of a warp lie in different banks.
  float *queries = reinterpret_cast<float *>(memory), *keys = queries + F32_QUERIES * D, *values = keys + F32_KEYS * (D + 1);
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int last = min(tile.first + F32_QUERIES, tile.len) - 1;
  const int begin = max(tile.first - scores.left, 0), end = min(last + scores.right + 1, tile.len);
  float o[ROWS_PER_WARP][D / WARP], m[ROWS_PER_WARP], l[ROWS_PER_WARP];
#pragma unroll
  for (int r = 0; r < ROWS_PER_WARP; r++) {
    m[r] = -INFINITY;
    l[r] = 0.0f;
#pragma unroll
    for (int c = 0; c < D / WARP; c++)
      o[r][c] = 0.0f;
  }
  load_f32<D>(queries, D, q + tile.first * q_stride, q_stride, last + 1 - tile.first, F32_QUERIES, dim);
  for (int key = begin; key < end; key += F32_KEYS) {
    load_f32<D>(keys, D + 1, k + key * k_stride, k_stride, end - key, F32_KEYS, dim);
    load_f32<D>(values, D, v + key * v_stride, v_stride, end - key, F32_KEYS, dim);
    __syncthreads();
    float p[ROWS_PER_WARP] = {};
    for (int d = 0; d < D; d++) {
      const float number = keys[lane * (D + 1) + d];
#pragma unroll
      for (int r = 0; r < ROWS_PER_WARP; r++)
        p[r] += queries[(warp * ROWS_PER_WARP + r) * D + d] * number;
    }
#pragma unroll
    for (int r = 0; r < ROWS_PER_WARP; r++) {
      const int query = min(tile.first + warp * ROWS_PER_WARP + r, last), at = key + lane;
      const float score = at < end && scores.sees(query, at) ? scores.of(p[r], query, at) : -INFINITY;
      const float top = fmaxf(m[r], warp_max(score)), base = top == -INFINITY ? 0.0f : top, keep = exp2f(m[r] - base);
      m[r] = top;
      p[r] = exp2f(score - base);
      l[r] = l[r] * keep + warp_sum(p[r]);
#pragma unroll
      for (int c = 0; c < D / WARP; c++)
        o[r][c] *= keep;
    }
    for (int other = 0; other < WARP; other++) {
      float number[D / WARP];
#pragma unroll
      for (int c = 0; c < D / WARP; c++)
        number[c] = values[other * D + c * WARP + lane];
#pragma unroll
      for (int r = 0; r < ROWS_PER_WARP; r++) {
        const float weight = __shfl_sync(ALL_LANES, p[r], other);
#pragma unroll
        for (int c = 0; c < D / WARP; c++)
          o[r][c] += weight * number[c];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < ROWS_PER_WARP; r++) {
    const int query = tile.first + warp * ROWS_PER_WARP + r;
    for (int c = 0; c < D / WARP; c++)
      if (query <= last && c * WARP + lane < dim)
        out[query * out_stride + c * WARP + lane] = o[r][c] / l[r];
  }
}

#define ATTENTION_F32(D)                                                                                                                     \
  extern "C" __global__ void __launch_bounds__(F32_THREADS)                                                                                  \
      attention_f32_##D(float *out, const float *q, const float *k, const float *v, const int *tiles, const float *bias, int kind,           \
                        int width, int left, int right, float scale, int q_stride, int k_stride, int v_stride, int dim, int group,           \
                        int) {                                                                                                               \
    const Tile tile(tiles);                                                                                                                  \
    const int head = blockIdx.y, kv_head = head / group;                                                                                     \
    const int64_t start = tile.start, out_stride = (int64_t)gridDim.y * dim;                                                                 \
    attend_f32<D>(out + start * out_stride + head * dim, q + start * q_stride + head * dim, k + start * k_stride + kv_head * dim,            \
                  v + start * v_stride + kv_head * dim, tile, Scores(scale, kind, bias, width, left, right, head), out_stride, q_stride,     \
                  k_stride, v_stride, dim);                                                                                                  \
  }                                                                                                                                          \
  KERNEL(attention_f32_##D)

ATTENTION_F32(32)
ATTENTION_F32(64)
ATTENTION_F32(96)
ATTENTION_F32(128)
ATTENTION_F32(256)
