// Residual and norm in one pass: `sum = x + y`, `normed = norm(sum)`; the statistics are those of the sum before it is rounded.
#include "device.cuh"

// One block per row of `width` numbers. Absent: y (then sum = x), bias; `sum` where it is not wanted.
template <typename T, int V>
__device__ void add_norm(T *sum, T *normed, const T *x, const T *y, const T *weight, const T *bias, int width, int rms, float eps) {
  SHARED(memory);
  float *row = reinterpret_cast<float *>(memory), *partial = row + width;
  const size_t at = (size_t)blockIdx.x * width;
  const int step = blockDim.x * V, first = threadIdx.x * V;
  float total = 0.0f;
  for (int c = first; c < width; c += step) {
    Pack<T, V> pack = load_pack<T, V>(x + at + c);
    float numbers[V];
    for (int i = 0; i < V; i++)
      numbers[i] = to_float(pack.at[i]);
    if (y) {
      pack = load_pack<T, V>(y + at + c);
      for (int i = 0; i < V; i++)
        numbers[i] += to_float(pack.at[i]);
    }
    for (int i = 0; i < V; i++) {
      row[c + i] = numbers[i];
      total += numbers[i];
      round_to(pack.at[i], numbers[i]);
    }
    if (sum)
      store_pack<T, V>(sum + at + c, pack);
  }
  const float mean = rms ? 0.0f : block_sum(total, partial) / (float)width;
  float squares = 0.0f;
  for (int c = first; c < width; c += step)
    for (int i = 0; i < V; i++)
      squares += (row[c + i] - mean) * (row[c + i] - mean);
  const float scale = 1.0f / sqrtf(block_sum(squares, partial) / (float)width + eps);
  for (int c = first; c < width; c += step) {
    const Pack<T, V> factors = load_pack<T, V>(weight + c);
    Pack<T, V> shifts = {}, pack;
    if (bias)
      shifts = load_pack<T, V>(bias + c);
    for (int i = 0; i < V; i++)
      round_to(pack.at[i], (row[c + i] - mean) * scale * to_float(factors.at[i]) + (bias ? to_float(shifts.at[i]) : 0.0f));
    store_pack<T, V>(normed + at + c, pack);
  }
}

#define ADD_NORM(T, V)                                                                                                                       \
  extern "C" __global__ void add_norm_##T##_##V(T *normed, T *sum, const T *x, const T *y, const T *weight, const T *bias, int width,        \
                                                int rms, float eps) {                                                                        \
    add_norm<T, V>(sum, normed, x, y, weight, bias, width, rms, eps);                                                                        \
  }                                                                                                                                          \
  KERNEL(add_norm_##T##_##V)

ADD_NORM(f32, 1)
ADD_NORM(f32, 4)
ADD_NORM(bf16, 1)
ADD_NORM(bf16, 8)
ADD_NORM(f16, 1)
ADD_NORM(f16, 8)
