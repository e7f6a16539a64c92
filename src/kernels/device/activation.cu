// What follows a product: its bias, an activation, and the gate of a gated MLP.
#include "device.cuh"

// x = activation(x + bias) in place, `count` numbers in rows of `width`. Absent: bias.
template <typename T, int V> __device__ void bias_activation(T *x, const T *bias, int64_t count, int width, int activation) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x * V;
  for (int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V; at < count; at += step) {
    Pack<T, V> pack = load_pack<T, V>(x + at), shift = {};
    if (bias)
      shift = load_pack<T, V>(bias + at % width);
    for (int i = 0; i < V; i++)
      round_to(pack.at[i], activate(to_float(pack.at[i]) + (bias ? to_float(shift.at[i]) : 0.0f), activation));
    store_pack<T, V>(x + at, pack);
  }
}

// out = activation(gate + its bias) * (up + its bias), `rows` rows of `width`; a row of x is the gate, then the up. Absent: bias, [2 width].
template <typename T, int V> __device__ void gated(T *out, const T *x, const T *bias, int rows, int width, int activation) {
  const int64_t step = (int64_t)gridDim.x * blockDim.x * V, count = (int64_t)rows * width;
  for (int64_t at = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * V; at < count; at += step) {
    const int64_t row = at / width;
    const int column = (int)(at % width);
    const T *gate = x + row * 2 * width + column;
    Pack<T, V> open = load_pack<T, V>(gate), up = load_pack<T, V>(gate + width), shifts[2] = {};
    if (bias) {
      shifts[0] = load_pack<T, V>(bias + column);
      shifts[1] = load_pack<T, V>(bias + width + column);
    }
    for (int i = 0; i < V; i++) {
      const float left = to_float(open.at[i]) + (bias ? to_float(shifts[0].at[i]) : 0.0f);
      const float right = to_float(up.at[i]) + (bias ? to_float(shifts[1].at[i]) : 0.0f);
      round_to(open.at[i], activate(left, activation) * right);
    }
    store_pack<T, V>(out + at, open);
  }
}

#define ACTIVATIONS(T, V)                                                                                                                    \
  extern "C" __global__ void bias_activation_##T##_##V(T *x, const T *bias, int rows, int width, int activation) {                           \
    bias_activation<T, V>(x, bias, (int64_t)rows * width, width, activation);                                                                \
  }                                                                                                                                          \
  KERNEL(bias_activation_##T##_##V)                                                                                                          \
  extern "C" __global__ void gated_##T##_##V(T *out, const T *x, const T *bias, int rows, int width, int activation) {                       \
    gated<T, V>(out, x, bias, rows, width, activation);                                                                                      \
  }                                                                                                                                          \
  KERNEL(gated_##T##_##V)

ACTIVATIONS(f32, 1)
ACTIVATIONS(f32, 4)
ACTIVATIONS(bf16, 1)
ACTIVATIONS(bf16, 8)
ACTIVATIONS(f16, 1)
ACTIVATIONS(f16, 8)
