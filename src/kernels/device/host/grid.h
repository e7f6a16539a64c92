// Runs a kernel's grid on the processor, for tests: one fiber per thread of a block, block after block, with the words of CUDA that the
// kernels here use. It is strict where a GPU would be silently wrong: threads that miss a barrier, lanes that diverge at a collective,
// addresses that are not aligned, shared memory that was never written (it holds NaN), writes behind its end, and copies that are read
// before they were awaited. It cannot show races between warps, the compiled PTX, or speed.
#pragma once
#undef _FORTIFY_SOURCE // longjmp between stacks is what is wanted here
#include <algorithm>
#include <csetjmp>
#include <cstring>
#include <memory>
#include <string>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

#define __device__
#define __global__
#define __launch_bounds__(...)
#define SHARED(name) unsigned char *name = grid::shared_memory()
#define KERNEL(name) static grid::Entry entry_##name(#name, [](void **arguments) { grid::call(name, arguments); });

using std::max;
using std::min;

struct Index {
  unsigned x, y, z;
};
static Index threadIdx, blockIdx, blockDim, gridDim;

namespace grid {

constexpr int LANES = 32, MOST_THREADS = 1024;
constexpr size_t STACK_BYTES = 256 << 10, GUARD_BYTES = 64, MOST_SHARED_BYTES = 227 << 10;
constexpr unsigned char NAN_BYTE = 0xff, GUARD_BYTE = 0xa5;

enum State { FRESH, READY, AT_WARP, AT_BLOCK, DONE };

struct Copy {
  void *to;
  const void *from;
};

struct Fiber {
  State state;
  jmp_buf here;
  ucontext_t first;
  std::unique_ptr<char[]> stack;
  bool waits_for_body; // it has run a body to its end and can run the next
  unsigned exchanges;                      // how many collectives it has passed
  std::vector<std::vector<Copy>> on_the_way; // groups of copies, the last one open
};

// What a lane shows the others at a collective.
struct Shown {
  uint32_t words[6];
  const void *pointer;
};

static Fiber fibers[MOST_THREADS];
static Shown shown[2][MOST_THREADS]; // by turns, so that one barrier per collective is enough
static Fiber *current;
static jmp_buf scheduler;
static std::vector<unsigned char> shared;
static std::string failure;
static void (*body)(void **);
static void **body_arguments;

inline unsigned char *shared_memory() { return shared.data(); }

inline void leave(State state) {
  current->state = state;
  if (!_setjmp(current->here))
    _longjmp(scheduler, 1);
}

inline void fail(const char *why) {
  if (failure.empty())
    failure = why;
  leave(DONE); // for good: the next body gets a fresh start
}

inline void start() {
  for (;;) {
    body(body_arguments);
    current->waits_for_body = true;
    leave(DONE);
  }
}

inline void go_on(int thread) {
  if (_setjmp(scheduler))
    return;
  current = &fibers[thread];
  threadIdx = {(unsigned)thread, 0, 0};
  if (current->state != FRESH || current->waits_for_body) {
    current->waits_for_body = false;
    _longjmp(current->here, 1);
  }
  if (!current->stack)
    current->stack.reset(new char[STACK_BYTES]);
  getcontext(&current->first);
  current->first.uc_stack.ss_sp = current->stack.get();
  current->first.uc_stack.ss_size = STACK_BYTES;
  makecontext(&current->first, start, 0);
  setcontext(&current->first);
}

// Runs a warp until all its threads stand at the block's barrier or have ended.
inline void run_warp(int warp) {
  Fiber *lanes = fibers + warp * LANES;
  for (;;) {
    for (int lane = 0; lane < LANES; lane++)
      if (lanes[lane].state <= READY)
        go_on(warp * LANES + lane);
    if (!failure.empty())
      return;
    int waiting = 0;
    for (int lane = 0; lane < LANES; lane++)
      waiting += lanes[lane].state == AT_WARP;
    if (waiting == 0)
      return;
    if (waiting != LANES)
      return (void)(failure = "the lanes of a warp diverge at a collective");
    for (int lane = 0; lane < LANES; lane++)
      lanes[lane].state = READY;
  }
}

// One block. `backwards` lets the last warp go first between barriers, which a race between warps may show.
inline void run_block(int threads, bool backwards) {
  std::fill(shared.begin(), shared.end() - GUARD_BYTES, NAN_BYTE);
  std::fill(shared.end() - GUARD_BYTES, shared.end(), GUARD_BYTE);
  for (int thread = 0; thread < threads; thread++) {
    fibers[thread].state = FRESH;
    fibers[thread].exchanges = 0;
    fibers[thread].on_the_way.assign(1, {});
  }
  for (int warps = threads / LANES;;) {
    for (int warp = 0; warp < warps && failure.empty(); warp++)
      run_warp(backwards ? warps - 1 - warp : warp);
    if (!failure.empty())
      return;
    int done = 0;
    for (int thread = 0; thread < threads; thread++)
      done += fibers[thread].state == DONE;
    if (done == threads)
      break;
    if (done > 0)
      return (void)(failure = "some threads of a block ended before a barrier of the others");
    for (int thread = 0; thread < threads; thread++)
      fibers[thread].state = READY;
  }
  if (std::any_of(shared.end() - GUARD_BYTES, shared.end(), [](unsigned char byte) { return byte != GUARD_BYTE; }))
    failure = "a block wrote behind its shared memory";
}

struct Entry {
  const char *name;
  void (*call)(void **);
  Entry *next;
  static Entry *&list() {
    static Entry *first = nullptr;
    return first;
  }
  Entry(const char *name, void (*call)(void **)) : name(name), call(call), next(list()) { list() = this; }
};

template <class... A, size_t... I> void call_with(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*static_cast<std::remove_reference_t<A> *>(arguments[I])...);
}

template <class... A> void call(void (*kernel)(A...), void **arguments) {
  call_with(kernel, arguments, std::index_sequence_for<A...>());
}

// Waits for the warp and gives what its lanes show.
inline const Shown *exchange(const Shown &own) {
  const unsigned turn = current->exchanges++ % 2, thread = threadIdx.x;
  shown[turn][thread] = own;
  leave(AT_WARP);
  return &shown[turn][thread / LANES * LANES];
}

template <class T> T lane_value(T value, unsigned lane) {
  static_assert(sizeof(T) == 4, "one register");
  Shown own = {};
  memcpy(own.words, &value, 4);
  const Shown *warp = exchange(own);
  memcpy(&value, warp[lane % LANES].words, 4);
  return value;
}

inline void need_aligned(const void *pointer, size_t bytes) {
  if ((uintptr_t)pointer % bytes)
    fail("an address is not aligned");
}

} // namespace grid

inline void __syncthreads() { grid::leave(grid::AT_BLOCK); }
inline void __syncwarp() { grid::exchange({}); }
template <class T> T __shfl_xor_sync(unsigned, T value, int distance) { return grid::lane_value(value, threadIdx.x % grid::LANES ^ distance); }
template <class T> T __shfl_sync(unsigned, T value, int lane) { return grid::lane_value(value, lane); }

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

inline float to_float(bf16 x) {
  uint32_t bits = (uint32_t)x.bits << 16;
  float to;
  memcpy(&to, &bits, 4);
  return to;
}

// To the nearest, ties to even.
inline void round_to(bf16 &to, float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  to.bits = x != x ? 0x7fff : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

inline float to_float(f16 x) {
  const int exponent = x.bits >> 10 & 31, mantissa = x.bits & 1023;
  const float size = exponent == 0    ? ldexpf((float)mantissa, -24)
                     : exponent == 31 ? (mantissa ? NAN : INFINITY)
                                      : ldexpf((float)(mantissa + 1024), exponent - 25);
  return x.bits & 0x8000 ? -size : size;
}

inline void round_to(f16 &to, float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float size = fabsf(x);
  if (x != x)
    return (void)(to.bits = 0x7fff);
  if (size >= 65520.0f)
    return (void)(to.bits = sign | 0x7c00);
  int exponent;
  frexpf(size, &exponent);
  // The unit of the last place: 2^-24 below the normal numbers.
  const int unit = std::max(exponent - 11, -24);
  const int units = (int)nearbyintf(ldexpf(size, -unit)); // ties to even, up to 2048
  to.bits = sign | (units < 1024 ? units : ((unit + 24) << 10) + units);
}

template <class T> void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const grid::Shown *warp = grid::exchange({{a[0], a[1], a[2], a[3], b0, b1}, nullptr});
  const auto half = [](uint32_t word, int index) {
    T number;
    number.bits = word >> (16 * index);
    return to_float(number);
  };
  const int lane = threadIdx.x % grid::LANES, group = lane / 4, place = lane % 4;
  for (int e = 0; e < 4; e++) {
    const int row = group + e / 2 * 8, column = place * 2 + e % 2;
    for (int k = 0; k < 16; k++) {
      const uint32_t left = warp[row % 8 * 4 + k % 8 / 2].words[row / 8 + k / 8 * 2];
      const uint32_t right = warp[column * 4 + k % 8 / 2].words[4 + k / 8];
      c[e] += half(left, k % 2) * half(right, k % 2);
    }
  }
}

inline void load_matrices(uint32_t (&to)[4], const void *row) {
  grid::need_aligned(row, 16);
  const grid::Shown *warp = grid::exchange({{}, row});
  const int lane = threadIdx.x % grid::LANES;
  for (int matrix = 0; matrix < 4; matrix++)
    memcpy(&to[matrix], static_cast<const char *>(warp[matrix * 8 + lane / 4].pointer) + lane % 4 * 4, 4);
}

inline void load_matrices_transposed(uint32_t (&to)[4], const void *row) {
  grid::need_aligned(row, 16);
  const grid::Shown *warp = grid::exchange({{}, row});
  const int lane = threadIdx.x % grid::LANES;
  for (int matrix = 0; matrix < 4; matrix++) {
    uint16_t pair[2];
    for (int i = 0; i < 2; i++)
      memcpy(&pair[i], static_cast<const char *>(warp[matrix * 8 + lane % 4 * 2 + i].pointer) + lane / 4 * 2, 2);
    memcpy(&to[matrix], pair, 4);
  }
}

inline void copy_async(void *to, const void *from, bool there) {
  grid::need_aligned(to, 16);
  grid::need_aligned(from, 16);
  grid::current->on_the_way.back().push_back({to, there ? from : nullptr});
}

inline void close_copies() { grid::current->on_the_way.push_back({}); }

template <int N> void await_copies() {
  auto &groups = grid::current->on_the_way;
  while (groups.size() - 1 > N) {
    for (const grid::Copy &copy : groups.front()) {
      if (copy.from)
        memcpy(copy.to, copy.from, 16);
      else
        memset(copy.to, 0, 16);
    }
    groups.erase(groups.begin());
  }
}
