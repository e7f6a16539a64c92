"""Our server under the texts that our engine embeds without it, in turns: tokens a second, and each process's own processor time for a token."""

import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys

from process import cpu_s, peak_mib

HERE = pathlib.Path(__file__).resolve().parent
MODEL = "measured"
# Workload, clients, texts in a request.
LOADS = [("http-A", 64, 1), ("http-A", 4, 32), ("http-B", 64, 1), ("http-B", 4, 32), ("short", 1, 1000), ("C", 1, 1)]


class Server:
    """`vecmill serve` with one model, held still while it is not its turn."""

    def __init__(self, command: list, log: pathlib.Path):
        self.log = log.open("w")
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"listening on http://(\S+):(\d+)\n", line)
        if not found:
            self.process.kill()
            raise RuntimeError(f"the server did not start, see {log}")
        self.address = found.groups()
        self.process.send_signal(signal.SIGSTOP)

    def load(self, path: pathlib.Path, clients: int, per_request: int) -> dict:
        """What clients.py tells, and `server_cpu_s`."""
        self.process.send_signal(signal.SIGCONT)
        before = cpu_s(self.process.pid)
        command = [sys.executable, HERE / "clients.py", *self.address, MODEL, path, str(clients), str(per_request)]
        told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        told["server_cpu_s"] = cpu_s(self.process.pid) - before
        self.process.send_signal(signal.SIGSTOP)
        if told["failed"]:
            raise RuntimeError(f"the server answered {told['failed']}")
        return told

    def close(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(timeout=60)
        self.log.close()


def measure(entry, engine, serve: list, made: dict, work: pathlib.Path, repeats: int) -> list[dict]:
    """Rows of engine, workload, clients and texts in a request, with medians beside those of the engine alone on the same texts."""
    server = Server(serve, work / f"server-{entry.kind}.log")
    rows = [{"engine": entry.name, "workload": load[0], "clients": load[1], "per_request": load[2], "runs": []} for load in LOADS]
    alone = {workload: [] for workload, *_ in LOADS}
    try:
        for _ in range(repeats):
            for workload, runs in alone.items():
                if workload != "C":
                    setting = {"batch": 1000, "in_flight": 1} if workload == "short" else {"batch": 32, "in_flight": 4}
                    runs.append(engine.ask(do="encode", workload=workload, setting=setting))
            for row in rows:
                row["runs"].append(server.load(work / f"{row['workload']}.txt", row["clients"], row["per_request"]))
        memory = peak_mib(server.process.pid)
    finally:
        server.close()
    for row in rows:
        summarise(row, sum(made[row["workload"]]["tokens"]), alone[row["workload"]])
        row["peak_mib"] = memory
    return rows


def summarise(row: dict, tokens: int, alone: list[dict]):
    """From all runs to medians."""
    runs = row.pop("runs")
    middle = lambda key, of: statistics.median(run[key] for run in of)
    row["tokens_per_s"] = [tokens / run["seconds"] for run in runs]
    row["p50_ms"] = statistics.median(statistics.median(run["ms"]) for run in runs)
    row["server_cpu_us_per_token"] = middle("server_cpu_s", runs) / tokens * 1e6
    row["clients_cpu_us_per_token"] = middle("cpu_s", runs) / tokens * 1e6
    if alone:
        row["engine_tokens_per_s"] = tokens / middle("seconds", alone)
        row["engine_cpu_us_per_token"] = middle("cpu_s", alone) / tokens * 1e6
        row["cpu_ratio"] = row["server_cpu_us_per_token"] / row["engine_cpu_us_per_token"]
