#!/usr/bin/env python3
"""Batch jobs under trial: killed three times, beside live queries, on a full disk, with small and large files, against `vecmill embed`.

Parts can be named: jobs.py kill latency memory disk throughput. The disk part needs root: it mounts a small tmpfs.
"""

import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from harness import MODEL, Server, arguments, bench, median, report
from jobclient import Client, lines

QUERY = ["--concurrency", "1", "--tokens-approx", "14"]
KILLS, REPEATS = 3, 3


class Place:
    """A data directory, and one server after the other in it."""

    def __init__(self, args, folder: pathlib.Path):
        self.args, self.folder, self.server = args, folder, None
        self.start()

    def start(self):
        self.server = Server(self.args, "--data-dir", str(self.folder), "--log-level", "error")
        self.client = Client(self.server.host, self.server.port)

    def kill(self):
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()

    def peak_mib(self) -> float:
        status = pathlib.Path(f"/proc/{self.server.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@contextlib.contextmanager
def place(args, folder=None):
    with tempfile.TemporaryDirectory(prefix="vecmill-jobs-") as scratch:
        place = Place(args, pathlib.Path(folder or scratch))
        try:
            yield place
        finally:
            place.server.process.terminate()
            place.server.process.wait()


def whole(client: Client, job: dict, asked: list[dict]) -> str:
    """'' if the results hold every line exactly once, in order, on the right side; else what is wrong."""
    good, bad = client.results(job, "output"), client.results(job, "errors")
    ids = [line["custom_id"] for line in asked if not line["custom_id"].startswith("bad")]
    bad_ids = [line["custom_id"] for line in asked if line["custom_id"].startswith("bad")]
    if [line["custom_id"] for line in good] != ids:
        return f"{len(good)} good lines, {len(ids)} asked, or another order"
    if [line["custom_id"] for line in bad] != bad_ids:
        return f"{len(bad)} bad lines, {len(bad_ids)} asked, or another order"
    by_id = {line["custom_id"]: line for line in asked}
    for line in good[:: len(good) // 50]:
        text = by_id[line["custom_id"]]["body"]["input"]
        if line["response"]["body"]["data"]["data"][0]["embedding"] != client.embed(text):
            return f"the vector of {line['custom_id']} is not what the endpoint answers"
    return ""


def kill(args) -> tuple[dict, list]:
    """50,000 lines through three kills at random moments."""
    asked, dice, killed_at = lines(50_000), random.Random(7), []
    with place(args) as here:
        started, job = time.monotonic(), here.client.submit(asked)
        for part in range(1, KILLS + 1):
            goal = int(len(asked) * (part - dice.random()) / (KILLS + 1))
            killed_at.append(here.client.wait(job, lambda now, goal=goal: now["completed"] + now["failed"] >= goal))
            time.sleep(dice.random() / 2)
            here.kill()
            here.start()
        here.client.wait(job, lambda now: now["ended"])
        seconds = time.monotonic() - started
        wrong, peak = whole(here.client, job, asked), here.peak_mib()
    return {"lines": len(asked), "killed_at_lines": killed_at, "seconds": seconds, "peak_mib": peak}, [
        (f"50,000 lines, {KILLS} x kill -9: every line once, in order, vectors as the endpoint's", wrong or f"all, in {seconds:.0f} s", not wrong)
    ]


def latency(args) -> tuple[dict, list]:
    """One client asking for one short text again and again, alone and beside a job."""
    with place(args) as here:
        bench(args, here.server, *QUERY, "--duration", "2s")
        alone = bench(args, here.server, *QUERY, "--duration", "15s")
        job = here.client.submit(lines(30_000))
        here.client.wait(job, lambda now: now["completed"] > 500)
        beside = bench(args, here.server, *QUERY, "--duration", "15s")
        running = not here.client.look(job)["ended"]
    p50, p99 = ([step["latency_ms"]["accepted"][q] for step in (alone, beside)] for q in ("p50", "p99"))
    return {"alone": alone, "beside": beside}, [
        ("the job ran all the time", "yes" if running else "no", running),
        ("query p99 beside a job <= 3 x alone", f"{p99[1]:.1f} ms; alone {p99[0]:.1f} ms (p50 {p50[1]:.1f} and {p50[0]:.1f} ms)", p99[1] <= 3 * p99[0]),
    ]


def memory(args) -> tuple[dict, list]:
    """Peak memory of a server that has done one job of a small and one of a large file."""
    peaks = []
    for count in (1_000, 20_000):
        with place(args) as here:
            job = here.client.submit(lines(count))
            here.client.wait(job, lambda now: now["ended"])
            peaks.append(here.peak_mib())
    return {"peak_mib": peaks}, [("20 x the lines, peak memory + 10 % at most", f"{peaks[0]:.0f} and {peaks[1]:.0f} MiB", peaks[1] <= 1.1 * peaks[0])]


def disk(args) -> tuple[dict, list]:
    """A disk that fills up, and is made larger."""
    asked = lines(20_000)
    with tempfile.TemporaryDirectory(prefix="vecmill-disk-") as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], check=True)
        try:
            with place(args, folder) as here:
                job = here.client.submit(asked)
                full = here.client.stalls(job)
                status, _ = here.server.embed(["a query"])
                subprocess.run(["mount", "-o", "remount,size=1g", folder], check=True)
                end = here.client.wait(job, lambda now: now["ended"])
                wrong = whole(here.client, job, asked)
        finally:
            subprocess.run(["umount", folder], check=True)
    return {"stalled_at_lines": full, "ended_at_lines": end}, [
        ("on a full disk the job pauses and queries go on", f"paused at {full} lines; a query got {status}", 0 < full < len(asked) and status == 200),
        ("with room again it ends: every line once, in order", wrong or "all", not wrong),
    ]


def throughput(args) -> tuple[dict, list]:
    """The same lines through a job and through `vecmill embed`, alternated; starting the program is not counted."""
    asked, jobs, embeds = lines(8_000, bad=False, encoding="float"), [], []
    with tempfile.TemporaryDirectory(prefix="vecmill-embed-") as folder, place(args) as here:
        texts = [json.dumps(line["body"]["input"]) for line in asked]
        for _ in range(REPEATS):
            started, job = time.monotonic(), here.client.submit(asked)
            here.client.wait(job, lambda now: now["ended"])
            jobs.append(time.monotonic() - started)
            embeds.append(embed(args, folder, texts) - embed(args, folder, texts[:1]))
    share = median(embeds) / median(jobs)
    return {"lines": len(asked), "job_s": jobs, "embed_s": embeds}, [
        ("a job has >= 95 % of the throughput of `vecmill embed`", f"{share:.1%}: {median(jobs):.1f} s and {median(embeds):.1f} s", share >= 0.95)
    ]


def embed(args, folder: str, texts: list[str]) -> float:
    source, out = pathlib.Path(folder) / "in.jsonl", pathlib.Path(folder) / "out.jsonl"
    source.write_text("\n".join(texts))
    out.unlink(missing_ok=True)
    command = [str(args.binary), "embed", "--model", MODEL, "--dtype", args.dtype, "--input", str(source), "--output", str(out)]
    started = time.monotonic()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, env={**os.environ, "VECMILL_LOG_LEVEL": "error"})
    return time.monotonic() - started


PARTS = {part.__name__: part for part in (kill, latency, memory, disk, throughput)}

named = [word for word in sys.argv[1:] if word in PARTS]
sys.argv = [word for word in sys.argv if word not in PARTS]
args = arguments(__doc__)
found, claims = {}, []
for name in named or PARTS:
    figures, held = PARTS[name](args)
    print(name, held, flush=True)
    found[name] = figures
    claims += held
report(args, "-".join(["jobs", *named]), "Batch jobs of texts of 4 to 40 words, one line in 50 bad, on MiniLM and SQLite.", found, claims)
