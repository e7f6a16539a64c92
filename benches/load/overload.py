#!/usr/bin/env python3
"""Ten times more requests than one core can serve: refusals are quick, accepted requests finish, and no throughput is lost."""

import os
import sys

from harness import Server, arguments, bench, report

# About ten seconds of work for one core, so that the test sees a full queue soon.
QUEUE = ["--max-queue-tokens", "32768", "--max-request-tokens", "32768"]
LOAD = ["--tokens-approx", "124"]
CLIENTS, FACTOR = 32, 10

args = arguments(__doc__)
cores = sorted(os.sched_getaffinity(0))
if len(cores) < 2:
    sys.exit("needs two cores: one for the server, one for the generator")
mine, theirs = {cores[0]}, {cores[1]}
with Server(args, *QUEUE, "--threads", "1", cores=mine) as server:
    # The server's best: always something to do, nothing refused.
    best = bench(args, server, *LOAD, "--concurrency", str(CLIENTS), "--warmup", "5s", "--duration", f"{args.seconds / 2}s", cores=theirs)
    rate = FACTOR * best["requests_per_s"]
    # The warm-up fills the queue.
    over = bench(args, server, *LOAD, "--rate", f"{rate:.3f}", "--warmup", "15s", "--duration", f"{args.seconds}s", cores=theirs)

ratio = over["tokens_per_s"] / best["tokens_per_s"]
busy = over["latency_ms"]["rejected_429"] or {"p99": float("inf")}
accepted = over["latency_ms"]["accepted"] or {"max": float("inf")}
report(
    args,
    "overload",
    f"Server on one core, generator on another. Best: {CLIENTS} closed-loop clients, {best['requests_per_s']:.1f} requests/s. "
    f"Overload: open loop at {rate:.0f} requests/s for {args.seconds:.0f} s; {over['ok']} accepted, {over['rejected_429']} refused.",
    {"best": best, "overload": over},
    [
        ("requests are refused (429)", f"{over['rejected_429']} of {over['sent']}", over["rejected_429"] > 0),
        ("429 p99 < 100 ms", f"{busy['p99']:.1f} ms", busy["p99"] < 100),
        ("accepted requests finish", f"{sum(over['errors'].values())} failed, slowest {accepted['max'] / 1e3:.1f} s", not over["errors"]),
        ("throughput within 5 % of the best", f"{over['tokens_per_s']:.0f} of {best['tokens_per_s']:.0f} tokens/s ({ratio:.1%})", ratio >= 0.95),
        ("the generator kept its pace", f"{over['unsent']} unsent", over["unsent"] == 0),
    ],
)
