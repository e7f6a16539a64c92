"""What the load tests share: a server on chosen cores, the load generator on others, and results as JSON and Markdown.

Every test prints its findings, writes them to benches/runs/<date>-<machine>/, and exits with 1 if a claim did not hold.
"""

import argparse
import datetime
import http.client
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = "all-MiniLM-L6-v2"
# Metrics that the tests read.
QUEUE_TOKENS = "vecmill_queue_tokens"
BATCHES = "vecmill_batch_tokens_count"


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/vecmill")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results (default: benches/runs/<date>-<machine>)")
    parser.add_argument("--seconds", type=float, default=60, help="length of the main measurement")
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


class Server:
    """`vecmill serve` as a process of its own; `cores` pins it. Ends with SIGTERM and must then exit with 0."""

    def __init__(self, args, *flags: str, cores: set[int] | None = None, model: str = MODEL):
        command = [str(args.binary), "serve", "--model", model, "--dtype", args.dtype, "--port", "0", *flags]
        # What a server logs under load is not part of its answer.
        environment = {**os.environ, "VECMILL_LOG_LEVEL": "warn"}
        started = time.monotonic()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=pin(cores))
        line = self.process.stdout.readline()
        self.start_s = time.monotonic() - started
        found = re.fullmatch(r"listening on http://(\S+):(\d+)\n", line)
        if not found:
            self.process.kill()
            sys.exit(f"the server did not start; it said {line!r}")
        self.host, self.port, self.base = found[1], int(found[2]), line.split()[-1]

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=90)
        finally:
            self.process.kill()
        if code != 0 and not any(failure):
            sys.exit(f"the server ended with exit code {code}")

    def get(self, path: str) -> str:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def metric(self, name: str) -> float | None:
        """The sum of a metric over its labels; None if the server has no such metric."""
        samples = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", self.get("/metrics"), re.MULTILINE)
        return sum(map(float, samples)) if samples else None

    def rss_mib(self) -> float:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024

    def embed(self, texts: list[str]) -> tuple[int, dict]:
        """Status and body of one request."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.request("POST", "/v1/inference/embed", json.dumps({"model": MODEL, "input": texts}))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


class Sampler(threading.Thread):
    """Calls `probe` every `interval` seconds until stopped; `samples` holds what it returned."""

    def __init__(self, probe, interval: float = 0.5):
        super().__init__(daemon=True)
        self.probe, self.interval, self.samples, self.done = probe, interval, [], threading.Event()

    def run(self):
        while not self.done.wait(self.interval):
            self.samples.append(self.probe())

    def stop(self) -> list:
        self.done.set()
        self.join()
        return self.samples


def pin(cores: set[int] | None):
    """For a child process: run on these cores alone."""
    return (lambda: os.sched_setaffinity(0, cores)) if cores else None


def bench(args, server: Server, *flags: str, cores: set[int] | None = None) -> dict:
    """One step of `vecmill bench`. A failing bench (wrong answers) still has its report."""
    command = [str(args.binary), "bench", "--url", server.base, "--model", MODEL, "--json", "-", *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, preexec_fn=pin(cores))
    if not done.stdout.strip():
        sys.exit(f"no report from: {' '.join(command)}")
    (step,) = json.loads(done.stdout)["steps"]
    return step


def machine() -> dict:
    cpu = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20, 1),
        "kernel": platform.release(),
    }


def folder(args) -> pathlib.Path:
    """benches/runs/<date>-<machine>, the machine told by its processor and number of cores."""
    told = machine()
    name = re.sub(r"\(r\)|\(tm\)|@.*|\bcpu\b|\bprocessor\b|\b\d+-core\b", " ", told["cpu"].lower())
    name = re.sub(r"[^a-z0-9]+", "-", name).strip("-")
    return args.out or ROOT / "benches/runs" / f"{datetime.date.today()}-{name}-{told['cores']}c"


def report(args, name: str, what: str, figures: dict, claims: list[tuple[str, str, bool]]):
    """Prints and writes the result; `claims` are (what is claimed, the figure, whether it held)."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    told = machine()
    lines = [f"# {name}", "", what, "", f"{told['cpu']}, {told['cores']} cores, {told['memory_gib']} GiB; commit {commit or 'unknown'}.", ""]
    lines += ["| claim | figure | held |", "|---|---|---|"]
    lines += [f"| {claim} | {figure} | {'yes' if held else '**no**'} |" for claim, figure, held in claims]
    text = "\n".join(lines) + "\n"
    place = folder(args)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.md").write_text(text)
    whole = {"name": name, "date": str(datetime.date.today()), "commit": commit, "machine": told, "dtype": args.dtype, "figures": figures}
    whole["claims"] = [{"claim": claim, "figure": figure, "held": held} for claim, figure, held in claims]
    (place / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n")
    print(text)
    sys.exit(0 if all(held for *_, held in claims) else 1)


def median(samples) -> float:
    return statistics.median(samples)
