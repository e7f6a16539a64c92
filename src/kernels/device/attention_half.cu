// Attention over packed texts on tensor cores, for bf16 and f16: online softmax in f32 (Milakov and Gimelshein 2018; Dao 2023), one block of
// four warps per 64 queries of one text and head. Scores never leave the registers; keys and values of the next step are copied while
// this one is computed.
#include "mma.cuh"
#include "scores.cuh"

constexpr int HALF_THREADS = 128, HALF_QUERIES = 64, WARP_QUERIES = 16;

// Rows in shared memory are 16 bytes longer than their numbers, so that the eight rows of a matrix lie in different banks.
constexpr int PADDING = 8;

// `rows` rows of `dim` numbers into ROWS rows of D; what is beyond them is zero. `aligned`: 16 bytes at a time.
template <typename T, int D, int ROWS> __device__ void load_rows(T *to, const T *from, int64_t stride, int rows, int dim, bool aligned) {
  constexpr int CHUNKS = D / 8;
  for (int i = threadIdx.x; i < ROWS * CHUNKS; i += HALF_THREADS) {
    const int row = i / CHUNKS, column = i % CHUNKS * 8;
    const int count = row < rows ? max(min(dim - column, 8), 0) : 0;
    T *chunk = to + row * (D + PADDING) + column;
    const T *source = count > 0 ? from + row * stride + column : from;
    if (aligned) {
      copy_async(chunk, source, count > 0);
    } else {
      for (int e = 0; e < 8; e++)
        chunk[e] = e < count ? source[e] : rounded<T>(0.0f);
    }
  }
}

// Products of a warp's 16 queries with N keys.
template <typename T, int D, int N> __device__ void scores_of(float (&s)[N / 8][4], const T *queries, const T *keys, int lane) {
  constexpr int ROW = D + PADDING;
#pragma unroll
  for (int j = 0; j < N / 8; j++)
    s[j][0] = s[j][1] = s[j][2] = s[j][3] = 0.0f;
#pragma unroll
  for (int k = 0; k < D; k += 16) {
    uint32_t a[4], b[4];
    load_matrices(a, queries + lane % 16 * ROW + k + lane / 16 * 8);
#pragma unroll
    for (int j = 0; j < N / 16; j++) {
      load_matrices(b, keys + (j * 16 + lane % 8 + lane / 16 * 8) * ROW + k + lane / 8 % 2 * 8);
      multiply_add<T>(s[2 * j], a, b[0], b[1]);
      multiply_add<T>(s[2 * j + 1], a, b[2], b[3]);
    }
  }
}

// From scores to weights of the new maximum; what is there already is scaled to it. `m` and `l`: maxima and this lane's part of the sums.
template <int D, int N> __device__ void renew(float (&s)[N / 8][4], float (&o)[D / 8][4], float (&m)[2], float (&l)[2]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float top = m[r];
#pragma unroll
    for (int j = 0; j < N / 8; j++)
      top = fmaxf(top, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
    top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 1));
    top = fmaxf(top, __shfl_xor_sync(ALL_LANES, top, 2));
    // No key seen so far: any finite base gives weights of zero.
    const float base = top == -INFINITY ? 0.0f : top, keep = exp2f(m[r] - base);
    m[r] = top;
    l[r] *= keep;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
      o[j][2 * r] *= keep;
      o[j][2 * r + 1] *= keep;
    }
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
      for (int e = 2 * r; e < 2 * r + 2; e++)
        l[r] += s[j][e] = exp2f(s[j][e] - base);
  }
}

// o += weights times values.
template <typename T, int D, int N> __device__ void mix(float (&o)[D / 8][4], const float (&p)[N / 8][4], const T *values, int lane) {
#pragma unroll
  for (int i = 0; i < N / 16; i++) {
    const uint32_t a[4] = {packed<T>(p[2 * i][0], p[2 * i][1]), packed<T>(p[2 * i][2], p[2 * i][3]), packed<T>(p[2 * i + 1][0], p[2 * i + 1][1]),
                           packed<T>(p[2 * i + 1][2], p[2 * i + 1][3])};
#pragma unroll
    for (int j = 0; j < D / 16; j++) {
      uint32_t b[4];
      load_matrices_transposed(b, values + (i * 16 + lane % 16) * (D + PADDING) + j * 16 + lane / 16 * 8);
      multiply_add<T>(o[2 * j], a, b[0], b[1]);
      multiply_add<T>(o[2 * j + 1], a, b[2], b[3]);
    }
  }
}

// q, k, v: the head's first numbers in the text's first row; out: the same, with rows of `out_stride`.
template <typename T, int D>
__device__ void attend(T *out, const T *q, const T *k, const T *v, const Tile &tile, const Scores &scores, int64_t out_stride, int64_t q_stride,
                       int64_t k_stride, int64_t v_stride, int dim, bool aligned) {
  constexpr int N = D > 128 ? 32 : 64, ROW = D + PADDING, KEYS = N * ROW;
  SHARED(memory);
  T *queries = reinterpret_cast<T *>(memory), *keys = queries + HALF_QUERIES * ROW, *values = keys + 2 * KEYS;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int last = min(tile.first + HALF_QUERIES, tile.len) - 1;
  const int begin = max(tile.first - scores.left, 0), end = min(last + scores.right + 1, tile.len);
  const int row = tile.first + warp * WARP_QUERIES + lane / 4;
  // A warp whose queries all lie beyond the text only helps to load.
  const bool active = tile.first + warp * WARP_QUERIES < tile.len;
  float o[D / 8][4], m[2] = {-INFINITY, -INFINITY}, l[2] = {0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < D / 8; j++)
    o[j][0] = o[j][1] = o[j][2] = o[j][3] = 0.0f;

  load_rows<T, D, HALF_QUERIES>(queries, q + tile.first * q_stride, q_stride, last + 1 - tile.first, dim, aligned);
  load_rows<T, D, N>(keys, k + begin * k_stride, k_stride, end - begin, dim, aligned);
  load_rows<T, D, N>(values, v + begin * v_stride, v_stride, end - begin, dim, aligned);
  close_copies();
  int buffer = 0;
  for (int key = begin; key < end; key += N, buffer ^= 1) {
    const int next = key + N;
    if (next < end) {
      load_rows<T, D, N>(keys + (buffer ^ 1) * KEYS, k + next * k_stride, k_stride, end - next, dim, aligned);
      load_rows<T, D, N>(values + (buffer ^ 1) * KEYS, v + next * v_stride, v_stride, end - next, dim, aligned);
      close_copies();
      await_copies<1>();
    } else {
      await_copies<0>();
    }
    __syncthreads();
    if (active) {
      float s[N / 8][4];
      scores_of<T, D, N>(s, queries + warp * WARP_QUERIES * ROW, keys + buffer * KEYS, lane);
      const bool open = next <= end && key >= last - scores.left && next - 1 <= tile.first + scores.right;
#pragma unroll
      for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const int query = row + e / 2 * 8, at = key + j * 8 + lane % 4 * 2 + e % 2;
          // Rows beyond the text are computed with the last one's bias and thrown away.
          const int known = min(query, last);
          s[j][e] = open || (at < end && scores.sees(known, at)) ? scores.of(s[j][e], known, at) : -INFINITY;
        }
      renew<D, N>(s, o, m, l);
      mix<T, D, N>(o, s, values + buffer * KEYS, lane);
    }
    __syncthreads();
  }
  if (!active)
    return;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    float sum = l[r] + __shfl_xor_sync(ALL_LANES, l[r], 1);
    sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    if (row + 8 * r > last)
      continue;
    T *to = out + (row + 8 * r) * out_stride;
#pragma unroll
    for (int j = 0; j < D / 8; j++) {
      const int column = j * 8 + lane % 4 * 2;
      if (aligned && column < dim) {
        *reinterpret_cast<uint32_t *>(to + column) = packed<T>(o[j][2 * r] / sum, o[j][2 * r + 1] / sum);
      } else {
        for (int e = 0; e < 2; e++)
          if (column + e < dim)
            to[column + e] = rounded<T>(o[j][2 * r + e] / sum);
      }
    }
  }
}

// Blocks: tiles x heads. `group` query heads share a key head; rows of q, k and v lie `*_stride` numbers apart, heads `dim`.
#define ATTENTION(T, D)                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(HALF_THREADS)                                                                                 \
      attention_##T##_##D(T *out, const T *q, const T *k, const T *v, const int *tiles, const float *bias, int kind, int width, int left,    \
                          int right, float scale, int q_stride, int k_stride, int v_stride, int dim, int group, int aligned) {               \
    const Tile tile(tiles);                                                                                                                  \
    const int head = blockIdx.y, kv_head = head / group;                                                                                     \
    const int64_t start = tile.start, out_stride = (int64_t)gridDim.y * dim;                                                                 \
    attend<T, D>(out + start * out_stride + head * dim, q + start * q_stride + head * dim, k + start * k_stride + kv_head * dim,             \
                 v + start * v_stride + kv_head * dim, tile, Scores(scale, kind, bias, width, left, right, head), out_stride, q_stride,      \
                 k_stride, v_stride, dim, aligned != 0);                                                                                     \
  }                                                                                                                                          \
  KERNEL(attention_##T##_##D)

// A build for a GPU compiles each head size by itself, so that only those in use are made ready there.
#if !defined(HEAD) || HEAD == 32
ATTENTION(bf16, 32)
ATTENTION(f16, 32)
#endif
#if !defined(HEAD) || HEAD == 64
ATTENTION(bf16, 64)
ATTENTION(f16, 64)
#endif
#if !defined(HEAD) || HEAD == 96
ATTENTION(bf16, 96)
ATTENTION(f16, 96)
#endif
#if !defined(HEAD) || HEAD == 128
ATTENTION(bf16, 128)
ATTENTION(f16, 128)
#endif
#if !defined(HEAD) || HEAD == 256
ATTENTION(bf16, 256)
ATTENTION(f16, 256)
#endif
