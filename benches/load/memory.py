#!/usr/bin/env python3
"""Memory of a server of MiniLM: its peak against its packed weights, and whether it stays flat under mixed load (requests of all sizes, and jobs)."""

import json
import pathlib
import re
import subprocess
import tempfile
import threading

from harness import MODEL, Sampler, Server, arguments, bench, median, report
from jobclient import Client, lines

MIB, MB = 2**20, 10**6
FACTOR, BESIDE_BYTES = 1.3, 100 * MB
# One to 32 texts a request, as long as texts in collections are; what is over the model's limit is cut.
LOAD = ["--concurrency", "16", "--texts-per-request", "1,1,1,1,1,1,2,2,4,32", "--lengths", "skewed", "--tokens-approx", "48", "--truncate", "end"]
JOB_LINES = 2_000


def packed_mib(args) -> int:
    """What the weights occupy as the server holds them, rounded down."""
    command = [str(args.binary), "doctor", "--model", MODEL, "--dtype", args.dtype, "--json"]
    decisions = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["decisions"]
    (rounded_up,) = [int(decision["value"]) for decision in decisions if decision["what"] == "weights_mib"]
    return rounded_up - 1


def status_mib(server: Server) -> dict:
    """Resident memory now and at its peak, and what of it is the process's own, in MiB."""
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return {name: round(int(re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)[1]) / 1024, 1) for name in ("VmHWM", "VmRSS", "RssAnon", "RssFile")}


def jobs(server: Server, done: threading.Event, ended: list):
    """One job after the other."""
    client = Client(server.host, server.port)
    asked = lines(JOB_LINES)
    while not done.is_set():
        job = client.submit(asked)
        client.wait(job, lambda now: now["ended"] or done.is_set())
        ended.append(client.look(job)["completed"])


args = arguments(__doc__)
packed = packed_mib(args)
with tempfile.TemporaryDirectory(prefix="vecmill-memory-") as folder:
    with Server(args, "--data-dir", folder, "--deadline-ms", "300000", "--log-level", "error") as server:
        started = status_mib(server)
        sampler, done, ended = Sampler(lambda: status_mib(server)["VmRSS"]), threading.Event(), []
        worker = threading.Thread(target=jobs, args=(server, done, ended), daemon=True)
        worker.start()
        sampler.start()
        step = bench(args, server, *LOAD, "--timeout", "300s", "--duration", f"{args.seconds}s")
        rss, after = sampler.stop(), status_mib(server)
        done.set()
        worker.join(60)

limit = (FACTOR * packed * MIB + BESIDE_BYTES) / MIB
quarter = len(rss) // 4
settled, end = median(rss[quarter : 2 * quarter]), median(rss[-quarter:])
report(
    args,
    "memory" if args.dtype == "auto" else f"memory-{args.dtype}",
    f"MiniLM in `--dtype {args.dtype}`: a start, then {args.seconds / 60:.1f} minutes of 16 closed-loop clients with 1 to 32 texts a request beside batch "
    f"jobs of {JOB_LINES} lines. Packed weights, embedding table included: {packed} MiB. After the start {started['VmRSS']:.0f} MiB resident, "
    f"{started['VmRSS'] - packed:.0f} of them beside the weights; after the load {after['VmRSS']:.0f}, of which {after['RssAnon']:.0f} are the process's own.",
    {"packed_mib": packed, "started_mib": started, "after_mib": after, "rss_mib": [round(mib, 1) for mib in rss], "bench": step, "job_lines": ended},
    [
        (f"peak resident memory of the start <= {FACTOR} x packed weights + 100 MB", f"{started['VmHWM']:.0f} of {limit:.0f} MiB", started["VmHWM"] <= limit),
        ("the same under mixed load", f"{after['VmHWM']:.0f} of {limit:.0f} MiB", after["VmHWM"] <= limit),
        ("memory flat", f"{settled:.0f} MiB in the second quarter, {end:.0f} MiB in the last", end <= 1.05 * settled + 8),
        ("every request answered", f"{step['ok']} of {step['sent']}, and {sum(ended)} lines of jobs", step["ok"] == step["sent"] and sum(ended) > 0),
    ],
)
