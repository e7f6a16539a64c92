#!/usr/bin/env python3
"""64 concurrent clients with requests of mixed sizes: every answer right, none lost, the queue bounded, memory flat."""

from harness import QUEUE_TOKENS, Sampler, Server, arguments, bench, median, report

LIMIT = 300_000
MIX = "1,1,1,1,1,1,2,2,4,32"

args = arguments(__doc__)
# On a slow machine 64 clients ask for more than a minute's work at once: what is tested is that nothing is lost, not the deadline.
with Server(args, "--max-queue-tokens", str(LIMIT), "--deadline-ms", "300000") as server:
    sampler = Sampler(lambda: (server.rss_mib(), server.metric(QUEUE_TOKENS)))
    sampler.start()
    # Lengths as in real collections; --check compares each vector with the first one of the same text.
    load = ["--concurrency", "64", "--texts-per-request", MIX, "--lengths", "skewed", "--tokens-approx", "48", "--truncate", "end", "--check", "--timeout", "300s"]
    step = bench(args, server, *load, "--duration", f"{args.seconds}s")
    samples = sampler.stop()

rss = [mib for mib, _ in samples]
depths = [tokens for _, tokens in samples if tokens is not None]
quarter = len(rss) // 4
settled, end = median(rss[quarter : 2 * quarter]), median(rss[-quarter:])
answered = step["ok"] + step["rejected_429"]
report(
    args,
    "soak",
    f"64 closed-loop clients for {args.seconds:.0f} s, {MIX} texts a request, skewed lengths, all cores shared by server and generator.",
    {"bench": step, "rss_mib": [round(mib, 1) for mib in rss], "queue_tokens": depths},
    [
        ("every answer right (count, order, size, finite, same vector as before)", f"{sum(step['wrong'].values())} wrong of {step['sent']}", not step["wrong"]),
        ("none lost", f"{step['sent'] - answered} of {step['sent']} without an answer", answered == step["sent"] and not step["errors"]),
        ("queue within its limit", f"at most {max(depths, default=-1):.0f} of {LIMIT} tokens seen", bool(depths) and max(depths) <= LIMIT),
        ("memory flat", f"{settled:.0f} MiB in the second quarter, {end:.0f} MiB in the last", end <= 1.05 * settled + 8),
    ],
)
