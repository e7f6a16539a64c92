"""Constant load for seven minutes: the memory of the process and of the GPU stays where it was once both were warm."""

import statistics
import threading
import time

from . import checkpoints, gpu, place, results
from .server import Server


def run(args) -> results.Result:
    checkpoints.ensure()
    seconds = 12 if args.small else 420
    load = ["--concurrency", "16", "--texts-per-request", "1,1,2,4,32", "--lengths", "skewed", "--tokens-approx", "48", "--truncate", "end", "--check"]
    rss, stop = [], threading.Event()
    with Server(args, "leak", "--model", f"m={place.MINILM}", "--log-level", "warn", "--min-cosine", "0") as server:

        def sample():
            while not stop.wait(0.5):
                rss.append(server.rss_mib())

        with gpu.Watch(args) as watch:
            sampler = threading.Thread(target=sample)
            sampler.start()
            started = time.monotonic()
            try:
                step = server.bench("m", *load, seconds=seconds)
            finally:
                stop.set()
                sampler.join()
            took = time.monotonic() - started
    result = results.Result(figures={"bench": step, "rss_mib": rss[::10], "gpu_mib": [memory for _, memory in watch.samples[::50]], "took_s": took})
    flat(result, "process", rss)
    if watch.samples:
        flat(result, "GPU", [memory for _, memory in watch.samples])
    else:
        result.claim("GPU: memory flat", "needs a GPU", None)
    result.claim("every answer right, none lost", f"{step['ok']} of {step['sent']} at {step['tokens_per_s']:.0f} tokens/s", step["ok"] + step["rejected_429"] == step["sent"])
    return result


def flat(result: results.Result, what: str, mib: list[float]) -> None:
    """The second quarter against the last: the first is still warming up."""
    quarter = len(mib) // 4
    settled, end = statistics.median(mib[quarter : 2 * quarter]), statistics.median(mib[-quarter:])
    result.claim(f"{what}: memory flat", f"{settled:.0f} MiB in the second quarter, {end:.0f} MiB in the last", end <= 1.02 * settled + 16)
