// From the hidden states of a text's tokens to one vector in f32, and its scaling to unit length.
#include "device.cuh"

enum Mode { CLS, MAX, MEAN, MEAN_SQRT_LEN, WEIGHTED_MEAN, LAST_TOKEN };

// Blocks: texts x portions of `blockDim.x` columns. `texts` holds of each text its first row, its tokens, and how many of them the prompt has.
// Writes `out[text * out_stride + column]`. A text of which nothing is left gives zeros, or its first token by CLS.
template <typename T> __device__ void pool(float *out, const T *hidden, const int *texts, int width, int out_stride, int mode) {
  const int column = blockIdx.y * blockDim.x + threadIdx.x;
  if (column >= width)
    return;
  const int start = texts[3 * blockIdx.x], len = texts[3 * blockIdx.x + 1], skip = min(texts[3 * blockIdx.x + 2], len), count = len - skip;
  const T *first = hidden + (int64_t)start * width + column, *counted = first + (int64_t)skip * width;
  float value = 0.0f;
  if (count == 0) {
    value = mode == CLS && len > 0 ? to_float(*first) : 0.0f;
  } else if (mode == CLS || mode == LAST_TOKEN) {
    value = to_float(counted[mode == CLS ? 0 : (int64_t)(count - 1) * width]);
  } else if (mode == MAX) {
    value = to_float(*counted);
    for (int row = 1; row < count; row++) {
      // Not fmaxf, which would swallow a NaN that must be seen.
      const float other = to_float(counted[(int64_t)row * width]);
      value = other > value || isnan(other) ? other : value;
    }
  } else {
    // The lost low parts of the sum are kept beside it (Kahan): a text may have thousands of tokens.
    float lost = 0.0f;
    for (int row = 0; row < count; row++) {
      const float number = to_float(counted[(int64_t)row * width]) * (mode == WEIGHTED_MEAN ? (float)(skip + row + 1) : 1.0f);
      const float next = number - lost, sum = value + next;
      lost = (sum - value) - next;
      value = sum;
    }
    const float all = (float)count;
    // Of the weights skip + 1 to skip + count.
    value /= mode == MEAN ? all : mode == MEAN_SQRT_LEN ? sqrtf(all) : all * (float)skip + all * (all + 1.0f) * 0.5f;
  }
  out[(int64_t)blockIdx.x * out_stride + column] = value;
}

#define POOL(T)                                                                                                                              \
  extern "C" __global__ void pool_##T(float *out, const T *hidden, const int *texts, int width, int out_stride, int mode) {                  \
    pool<T>(out, hidden, texts, width, out_stride, mode);                                                                                    \
  }                                                                                                                                          \
  KERNEL(pool_##T)

POOL(f32)
POOL(bf16)
POOL(f16)

// Each row of x, of `width` numbers, over its length in place; one block per row. `least` keeps a row of zeros what it is.
extern "C" __global__ void unit_length(float *x, int width, float least) {
  SHARED(memory);
  x += (int64_t)blockIdx.x * width;
  float squares = 0.0f;
  for (int c = threadIdx.x; c < width; c += blockDim.x)
    squares += x[c] * x[c];
  const float length = fmaxf(sqrtf(block_sum(squares, reinterpret_cast<float *>(memory))), least);
  for (int c = threadIdx.x; c < width; c += blockDim.x)
    x[c] /= length;
}
KERNEL(unit_length)
