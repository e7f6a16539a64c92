"""What a step found: figures for programs, rows for people, and claims that held or did not."""

import dataclasses
import datetime
import json
import os
import pathlib
import platform
import re
import subprocess

from . import place


@dataclasses.dataclass
class Claim:
    what: str
    figure: str
    # None = not run here, for want of a GPU.
    held: bool | None


@dataclasses.dataclass
class Result:
    """One step's."""

    figures: dict = dataclasses.field(default_factory=dict)
    # A table: its head, then its rows.
    table: list = dataclasses.field(default_factory=list)
    claims: list = dataclasses.field(default_factory=list)

    def claim(self, what: str, figure: str, held: bool | None) -> None:
        self.claims.append(Claim(what, figure, held))

    def held(self) -> bool:
        return all(claim.held is not False for claim in self.claims)


def write(args, step: str, result: Result, took_s: float) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    whole = {"step": step, "device": args.device, "small": args.small, "took_s": round(took_s, 1), **dataclasses.asdict(result)}
    (args.out / f"{step}.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(markdown(whole), flush=True)


def markdown(whole: dict) -> str:
    lines = []
    if whole["table"]:
        head, *rows = whole["table"]
        lines += ["| " + " | ".join(map(str, row)) + " |" for row in (head, ["---"] * len(head), *rows)] + [""]
    word = {True: "yes", False: "**no**", None: "not run"}
    lines += ["| claim | figure | held |", "|---|---|---|"]
    lines += [f"| {claim['what']} | {claim['figure']} | {word[claim['held']]} |" for claim in whole["claims"]]
    return "\n".join(lines) + "\n"


def machine() -> dict:
    cpu = re.search(r"^model name\s*:\s*(.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    smi = ask_smi("name,driver_version,memory.total")
    return {
        "date": str(datetime.date.today()),
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "gpu": smi[0] if smi else None,
        "driver": smi[1] if smi else None,
        "commit": commit(),
    }


def commit() -> str:
    """Of what is measured."""
    if place.PACKED:
        return json.loads((place.ROOT / "manifest.json").read_text())["commit"]
    told = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=place.ROOT, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def ask_smi(fields: str) -> list[str] | None:
    """One line of nvidia-smi; None without it."""
    try:
        told = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return [part.strip() for part in told.stdout.splitlines()[0].split(",")] if told.returncode == 0 and told.stdout else None
