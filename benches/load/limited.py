#!/usr/bin/env python3
"""A key far over its limit beside one that has none: the one is refused, exactly from its limit on, and the other is answered as if it were alone."""

import concurrent.futures
import http.client
import json
import pathlib
import subprocess
import tempfile
import time

from harness import MODEL, Server, arguments, report

LIMIT, CLIENTS, PER_S = 60, 32, 200


def key(args, name: str, limit: int | None) -> tuple[str, str]:
    """A key and its stanza of the keys file."""
    printed = subprocess.run([str(args.binary), "keys", "generate", "--name", name], check=True, capture_output=True, text=True).stdout
    secret = next(word for word in printed.split() if word.startswith("sgk_"))
    stanza = printed[printed.index("[[key]]") :].rstrip() + "\n"
    return secret, stanza + (f"requests_per_minute = {limit}\n" if limit else "")


def ask(server: Server, secret: str, until: float, every_s: float = 0.0) -> list[tuple[int, float]]:
    """One short query again and again; status and milliseconds of each."""
    connection, found = http.client.HTTPConnection(server.host, server.port, timeout=60), []
    body, headers = json.dumps({"model": MODEL, "input": "one short query"}), {"Authorization": f"Bearer {secret}"}
    while (started := time.monotonic()) < until:
        connection.request("POST", "/v1/inference/embed", body, headers)
        answer = connection.getresponse()
        answer.read()
        found.append((answer.status, (time.monotonic() - started) * 1e3))
        time.sleep(max(0.0, every_s - (time.monotonic() - started)))
    return found


def quantile(found, q: float) -> float:
    times = sorted(ms for _, ms in found)
    return times[min(int(len(times) * q), len(times) - 1)]


args = arguments(__doc__)
seconds = min(args.seconds, 10)
with tempfile.TemporaryDirectory(prefix="vecmill-limited-") as folder:
    (limited, one), (free, two) = key(args, "limited", LIMIT), key(args, "free", None)
    keys = pathlib.Path(folder) / "keys.toml"
    keys.write_text(one + "\n" + two)
    with Server(args, "--keys", str(keys), "--store", "memory", "--log-level", "error") as server:
        ask(server, free, time.monotonic() + 2)
        alone = ask(server, free, time.monotonic() + seconds)
        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            until = time.monotonic() + seconds
            over = [pool.submit(ask, server, limited, until, CLIENTS / PER_S) for _ in range(CLIENTS)]
            beside = ask(server, free, until)
        over = [pair for one in over for pair in one.result()]

statuses = {status: sum(found == status for found, _ in over) for status in {found for found, _ in over}}
p50, p99 = ([quantile(found, q) for found in (alone, beside)] for q in (0.5, 0.99))
report(
    args,
    "limited",
    f"{CLIENTS} clients of a key with {LIMIT} requests a minute ask {PER_S} times a second together; one client of another key asks one short query after the other.",
    {"alone": [p50[0], p99[0]], "beside": [p50[1], p99[1]], "limited": statuses, "refused_p50_ms": quantile([pair for pair in over if pair[0] == 429], 0.5)},
    [
        ("the limited key got its requests and no more", f"{statuses}", statuses.get(200) == LIMIT and set(statuses) == {200, 429}),
        ("the other key was never refused", f"{len(beside)} answers", all(status == 200 for status, _ in beside)),
        ("its p50 <= 1.5 x alone", f"{p50[1]:.1f} ms; alone {p50[0]:.1f} ms (p99 {p99[1]:.1f} and {p99[0]:.1f} ms)", p50[1] <= 1.5 * p50[0]),
    ],
)
