// What every kernel needs: number formats, reductions, vectors of numbers, and the words that differ between a GPU and the host's grid.
//
// The same files are compiled twice: by nvcc to PTX, and by a C++ compiler with `host/grid.h`, which runs a grid thread by thread on the
// processor so that tests execute every line of them without a GPU.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
using bf16 = __nv_bfloat16;
using f16 = __half;
// The block's dynamic shared memory.
#define SHARED(name) extern __shared__ __align__(16) unsigned char name[]
// Makes a kernel known to the host's grid.
#define KERNEL(name)
__device__ inline float to_float(bf16 x) { return __bfloat162float(x); }
__device__ inline float to_float(f16 x) { return __half2float(x); }
__device__ inline void round_to(bf16 &to, float x) { to = __float2bfloat16_rn(x); }
__device__ inline void round_to(f16 &to, float x) { to = __float2half_rn(x); }
#else
#include "host/grid.h"
#endif

using f32 = float;
__device__ inline float to_float(f32 x) { return x; }
__device__ inline void round_to(f32 &to, float x) { to = x; }

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

template <typename T> __device__ inline T rounded(float x) {
  T to;
  round_to(to, x);
  return to;
}

// V neighbouring numbers, moved by one instruction.
template <typename T, int V> struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <typename T, int V> __device__ inline Pack<T, V> load_pack(const T *from) { return *reinterpret_cast<const Pack<T, V> *>(from); }

template <typename T, int V> __device__ inline void store_pack(T *to, const Pack<T, V> &pack) { *reinterpret_cast<Pack<T, V> *>(to) = pack; }

__device__ inline float warp_sum(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2)
    x += __shfl_xor_sync(ALL_LANES, x, distance);
  return x;
}

__device__ inline float warp_max(float x) {
#pragma unroll
  for (int distance = WARP / 2; distance > 0; distance /= 2)
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, distance));
  return x;
}

// The sum over all threads of the block, known to all; `partial` is room for a float per warp. Every thread must come here.
__device__ inline float block_sum(float x, float *partial) {
  const int warps = blockDim.x / WARP;
  x = warp_sum(x);
  if (warps == 1)
    return x;
  __syncthreads(); // the last sum may still be read
  if (threadIdx.x % WARP == 0)
    partial[threadIdx.x / WARP] = x;
  __syncthreads();
  float sum = 0;
  for (int warp = 0; warp < warps; warp++)
    sum += partial[warp];
  return sum;
}

// The activations of `network::Activation`, in its order.
enum Activation { IDENTITY, GELU, GELU_TANH, RELU, SIGMOID, SILU, TANH };

__device__ inline float activate(float x, int activation) {
  switch (activation) {
  case GELU:
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  case GELU_TANH:
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
  case RELU:
    return x > 0.0f ? x : (isnan(x) ? x : 0.0f);
  case SIGMOID:
    return 1.0f / (1.0f + expf(-x));
  case SILU:
    return x / (1.0f + expf(-x));
  case TANH:
    return tanhf(x);
  default:
    return x;
  }
}
