#!/usr/bin/env python3
"""From the start of the process to the first answer: with an empty cache (the model is fetched and verified), and with a full one."""

import pathlib
import tempfile

from harness import Server, arguments, median, report

STARTS = 7


def start(cache: pathlib.Path) -> float:
    with Server(args, "--cache-dir", str(cache)) as server:
        status, _ = server.embed(["ready?"])
        assert status == 200, status
        return server.start_s


args = arguments(__doc__)
with tempfile.TemporaryDirectory() as folder:
    cold = start(pathlib.Path(folder))
    warm = [start(pathlib.Path(folder)) for _ in range(STARTS)]
report(
    args,
    "start",
    f"Process start to `listening on`, which is printed when the model is loaded and warm. Cold: empty cache, once. Warm: {STARTS} times.",
    {"cold_s": cold, "warm_s": warm},
    [
        ("an empty cache ends in a working server", f"{cold:.1f} s", True),
        ("a second start is ready in under 2 s", f"median {median(warm):.2f} s, worst {max(warm):.2f} s", max(warm) < 2),
    ],
)
