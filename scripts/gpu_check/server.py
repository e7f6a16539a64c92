"""The server as a process of its own, and the few requests that the steps make of it."""

import contextlib
import http.client
import json
import re
import select
import signal
import subprocess

from . import place

# Loading dozens of models, or compiling kernels for a card that is seen for the first time.
START_S = 300


class Server:
    """`vecmill serve`; ends with SIGTERM and must then exit with 0. Its log lies in the folder of the results."""

    def __init__(self, args, name: str, *flags: str):
        self.log_path = args.out / f"{name}.log"
        self.log = self.log_path.open("w")
        command = [str(place.binary()), "serve", "--device", args.device, "--port", "0", "--store", "memory", "--offline", "--deadline-ms", "300000"]
        self.process = subprocess.Popen([*command, "--log-format", "json", *flags], stdout=subprocess.PIPE, stderr=self.log, text=True)
        ready, _, _ = select.select([self.process.stdout], [], [], START_S)
        line = self.process.stdout.readline() if ready else ""
        found = re.fullmatch(r"listening on (http://(\S+):(\d+))\n", line)
        if not found:
            self.process.kill()
            self.process.wait()
            raise RuntimeError(f"the server did not start: {self.log_path.read_text()[-500:]}")
        self.base, self.host, self.port = found[1], found[2], int(found[3])

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=60)
        finally:
            self.process.kill()
            self.log.close()
        if code != 0 and not any(failure):
            raise RuntimeError(f"the server ended with exit code {code}: {self.log_path.read_text()[-500:]}")

    def embed(self, model: str, texts: list[str], **fields) -> list[list[float]]:
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=300)) as connection:
            connection.request("POST", "/v1/inference/embed", json.dumps({"model": model, "input": texts, **fields}))
            answer = json.loads(connection.getresponse().read())
        if answer["status"] != "ok":
            raise RuntimeError(f"{model}: {answer['error']}")
        return [item["embedding"] for item in answer["data"]["data"]]

    def bench(self, model: str, *flags: str, seconds: float, warmup: float = 1) -> dict:
        """One step of `vecmill bench`, the load generator inside the binary."""
        common = ["--model", model, "--duration", f"{seconds}s", "--warmup", f"{warmup}s", "--encoding-format", "base64", "--timeout", "120s"]
        done = subprocess.run([str(place.binary()), "bench", "--url", self.base, *common, "--json", "-", *flags], stdout=subprocess.PIPE, text=True)
        if not done.stdout.strip():
            raise RuntimeError("vecmill bench gave no report")
        (step,) = json.loads(done.stdout)["steps"]
        if step["errors"] or step["wrong"]:
            raise RuntimeError(f"vecmill bench: {step['errors']} {step['wrong']}")
        return step

    def rss_mib(self) -> float:
        with open(f"/proc/{self.process.pid}/status") as status:
            return int(re.search(r"VmRSS:\s+(\d+) kB", status.read())[1]) / 1024


def cosine(a: list[float], b: list[float]) -> float:
    """1 for two vectors of zeros: the same direction is the same none."""
    dot = lambda x, y: sum(p * q for p, q in zip(x, y))  # noqa: E731
    size = (dot(a, a) * dot(b, b)) ** 0.5
    return dot(a, b) / size if size else float(a == b)
