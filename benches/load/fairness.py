#!/usr/bin/env python3
"""A one-line query beside a 2,000-text request: it waits for the batch that is being computed, not for the request."""

import threading
import time

from harness import BATCHES, Server, arguments, bench, report

QUERY = ["--concurrency", "1", "--tokens-approx", "14"]
TEXTS = [f"one of the texts of a large request, number {i}" for i in range(2000)]

args = arguments(__doc__)
# The large request may take long on a slow machine; that is not what is measured here.
with Server(args, "--deadline-ms", "600000") as server:
    alone = bench(args, server, *QUERY, "--duration", "5s")

    answer = {}

    def large():
        started = time.monotonic()
        answer["status"], answer["body"] = server.embed(TEXTS)
        answer["seconds"] = time.monotonic() - started

    request = threading.Thread(target=large)
    request.start()
    time.sleep(0.5)
    batches, started = server.metric(BATCHES), time.monotonic()
    beside = bench(args, server, *QUERY, "--duration", f"{min(args.seconds, 3)}s")
    elapsed_ms, batches = (time.monotonic() - started) * 1e3, server.metric(BATCHES) - batches
    still_running = request.is_alive()
    request.join()

alone_ms, beside_ms = (step["latency_ms"]["accepted"]["p50"] for step in (alone, beside))
# The device is busy all the time. Queries have batches of their own; what is left are the large request's.
queries = beside["ok"]
batch_ms = (elapsed_ms - queries * alone_ms) / max(batches - queries, 1)
report(
    args,
    "fairness",
    f"One client asking for one short text again and again, alone and beside a request of 2,000 texts that took {answer['seconds']:.1f} s. "
    f"Batch time: the time that the queries' own {queries} batches left, by the {batches - queries:.0f} other batches.",
    {"alone": alone, "beside": beside, "large_request_s": answer["seconds"], "batches": batches, "elapsed_ms": elapsed_ms, "batch_ms": batch_ms},
    [
        ("the large request was running all the time", "yes" if still_running else "no", still_running),
        ("the large request was answered", f"status {answer['status']}", answer["status"] == 200 and len(answer["body"]["data"]["data"]) == len(TEXTS)),
        ("query p50 < 3 batch times", f"{beside_ms:.1f} ms beside ({alone_ms:.1f} ms alone); 3 x {batch_ms:.1f} ms", beside_ms < 3 * batch_ms),
    ],
)
