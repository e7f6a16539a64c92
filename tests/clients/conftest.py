"""A real server with a real model, started once for all client tests, and the keys to it."""

import math
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

import httpx
import pytest

BINARY = os.environ["VECMILL_BIN"]
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
# The first start may have to fetch the model.
START_S, STOP_S, ANSWER_S = 600, 120, 120


class Server:
    """`vecmill serve` on a free port; `base` is its address once it listens."""

    def __init__(self, folder: pathlib.Path, *args: str):
        self.log = folder / "server.log"
        # Never in the user's own data directory.
        place = () if "--store" in args else ("--data-dir", str(folder))
        command = [BINARY, "serve", "--port", "0", *place, *args]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
        # A server that never says that it listens is ended, which ends its output, which ends the wait.
        watchdog = threading.Timer(START_S, self.process.kill)
        watchdog.start()
        line = self.process.stdout.readline()
        watchdog.cancel()
        found = re.fullmatch(r"listening on (http://\S+)\n", line)
        if not found:
            self.process.kill()
            pytest.exit(f"the server did not start; it said {line!r} and its log ends in:\n{self.log.read_text()[-3000:]}", returncode=1)
        self.base = found[1]

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """The exit code; a server that does not end in time is a failure."""
        try:
            return self.process.wait(timeout=STOP_S)
        finally:
            self.process.kill()


class Keys:
    """What `vecmill keys generate` prints: a key, and the stanza of the file that lets it in."""

    def __init__(self, folder: pathlib.Path):
        printed = subprocess.run([BINARY, "keys", "generate", "--name", "clients"], check=True, capture_output=True, text=True).stdout
        self.key = re.search(r"sgk_\w{32,}", printed)[0]
        stanza = printed[printed.index("[[key]]") :]
        assert self.key not in stanza, "the file must hold the hash, never the key"
        self.file = folder / "keys.toml"
        self.file.write_text(stanza)


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def server(tmp_path_factory, keys):
    """Serves the model twice: as it is, and as `cut`, declared fit for shorter vectors."""
    folder = tmp_path_factory.mktemp("server")
    config = folder / "vecmill.toml"
    config.write_text("[models.cut]\nmatryoshka = true\n")
    models = ["--model", "all-MiniLM-L6-v2", "--model", "cut=all-MiniLM-L6-v2"]
    server = Server(folder, *models, "--config", str(config), "--keys", str(keys.file))
    yield server
    server.terminate()
    server.wait()


@pytest.fixture(scope="session")
def client(server, keys):
    with httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {keys.key}"}, timeout=ANSWER_S) as client:
        yield client


@pytest.fixture(scope="session")
def embed(client):
    """`embed(input, **fields)`: the answer to an embedding request."""

    def call(input, model=MODEL, **fields):
        return client.post("/v1/inference/embed", json={"model": model, "input": input, **fields})

    return call


def norm(vector) -> float:
    return math.sqrt(sum(x * x for x in vector))


def cosine(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (norm(a) * norm(b))


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL of its own on a free port, with an empty database; its URL."""
    programs = max(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    # It refuses to run as root; the package has made a user for it.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="vecmill-postgres-"))
    if as_user:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "timeout": ANSWER_S, "cwd": folder}
    subprocess.run([*as_user, programs / "initdb", "--auth=trust", "--username=vecmill", "--no-sync", "-D", data], **quiet)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    control = [*as_user, programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log"]
    options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder}"
    subprocess.run([*control, "-o", options, "start"], **quiet)
    try:
        yield f"postgres://vecmill@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


counts = {"passed": 0, "failed": 0}


def pytest_runtest_logreport(report):
    if report.failed:
        counts["failed"] += 1
    elif report.when == "call" and report.passed:
        counts["passed"] += 1


@pytest.hookimpl(trylast=True)
def pytest_unconfigure():
    print(f"{counts['passed']} passed, {counts['failed']} failed")
