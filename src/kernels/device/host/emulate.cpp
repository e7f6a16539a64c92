// Every kernel in one library for tests, called by name.
#include "../device.cuh"

#include "../activation.cu"
#include "../attention_f32.cu"
#include "../attention_half.cu"
#include "../norm.cu"
#include "../pool.cu"
#include "../rope.cu"

// Runs the kernel; gives what went wrong, or null. One call at a time.
extern "C" const char *vecmill_run_grid(const char *name, const unsigned *blocks, unsigned threads, size_t shared_bytes, bool backwards,
                                        void **arguments) {
  static std::string answer;
  grid::failure.clear();
  const grid::Entry *entry = grid::Entry::list();
  while (entry && strcmp(entry->name, name))
    entry = entry->next;
  if (!entry)
    return (answer = std::string("there is no kernel ") + name).c_str();
  if (threads == 0 || threads % grid::LANES || threads > grid::MOST_THREADS || shared_bytes > grid::MOST_SHARED_BYTES)
    return "a block of this size cannot be";
  grid::body = entry->call;
  grid::body_arguments = arguments;
  grid::shared.resize(shared_bytes + grid::GUARD_BYTES);
  gridDim = {blocks[0], blocks[1], blocks[2]};
  blockDim = {threads, 1, 1};
  for (unsigned z = 0; z < blocks[2]; z++)
    for (unsigned y = 0; y < blocks[1]; y++)
      for (unsigned x = 0; x < blocks[0] && grid::failure.empty(); x++) {
        blockIdx = {x, y, z};
        grid::run_block((int)threads, backwards);
      }
  answer = grid::failure;
  return answer.empty() ? nullptr : answer.c_str();
}
