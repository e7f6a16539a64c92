"""The comparison itself, within the environment that `run` made: see there for what it does and how it is called.

Every engine is loaded in a process of its own, and only the one measured runs. First each is tried once at each of its settings; then, for each workload, the
best setting of every engine is measured in turns, REPEATS times, and medians are compared. Fidelity and memory come from the same processes.
"""

import argparse
import json
import os
import pathlib
import sys

import catalog
import fidelity
import http_load
import models
import report
import turns
import workload
from process import Engine

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BINARY = ROOT / "target/release/vecmill"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--engines", default="")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--absent", type=json.loads, default={}, help="packages that could not be installed, with the reason")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


def cache() -> pathlib.Path:
    return pathlib.Path(os.environ.get("VECMILL_CACHE_DIR") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vecmill")


def workloads(said, name: str, model: pathlib.Path, work: pathlib.Path) -> dict[str, dict]:
    """The texts, cut with the model's tokenizer and kept from run to run."""
    from transformers import AutoTokenizer

    quick = "quick" if name == "minilm" else "quick shape"
    sizes = workload.SIZES[quick if said.quick else name]
    path = work / "workloads.json"
    if path.exists():
        made = json.loads(path.read_text(encoding="utf-8"))
        if {name: len(one["texts"]) for name, one in made.items()} == sizes:
            return made
    made = workload.build(AutoTokenizer.from_pretrained(model), sizes)
    workload.write(made, work)
    return made


def start(said, entry: catalog.Entry, model: pathlib.Path, work: pathlib.Path) -> Engine | str:
    """The engine, loaded; or why it does not run here."""
    if entry.package in said.absent:
        return f"not installed: {said.absent[entry.package]}"
    if entry.is_ours:
        if entry.kind == "bf16" and "avx512_bf16" not in pathlib.Path("/proc/cpuinfo").read_text():
            return "this processor has no bf16 instructions (Vecmill computes bf16 here by f32, for its vectors, not for speed)"
        built = json.loads((said.work / "built.json").read_text())
        command = [built["peers-engine"], "--workloads", work / "workloads.json", *flags(said, entry, model)]
    else:
        command = [sys.executable, HERE / "worker.py", entry.module, entry.kind, model, work, said.threads]
    engine = Engine(command, work / f"{entry.name.replace(' ', '-')}.log")
    return engine.absent or engine


def flags(said, entry: catalog.Entry, model: pathlib.Path) -> list:
    """Of `serve`, and of our engine without it."""
    own = ["--model", f"{http_load.MODEL}={model}", "--dtype", entry.kind, "--device", "cpu", "--threads", said.threads]
    return [*own, "--offline", "--cache-dir", said.work / "cache", "--store", "memory", "--log-level", "warn"]


def compare(said, name: str):
    work = said.work / name / ("quick" if said.quick else "whole")
    work.mkdir(parents=True, exist_ok=True)
    model = models.directory(name, BINARY, cache(), said.work)
    made = workloads(said, name, model, work)
    wanted = [entry for entry in catalog.ENTRIES if any(word in entry.name for word in said.engines.split(","))]
    print(f"{name}: loading", flush=True)
    loaded = {entry: start(said, entry, model, work) for entry in wanted}
    engines = {entry: engine for entry, engine in loaded.items() if isinstance(engine, Engine)}
    absent = {entry.name: why for entry, why in loaded.items() if isinstance(why, str)}
    repeats = 1 if said.quick else turns.REPEATS
    try:
        peak = report.peak(said)
        tried, failed = turns.try_settings(engines, made, name in workload.LARGE)
        for entry, why in failed.items():
            engines.pop(entry).close()
            absent[entry.name] = why
        measured = turns.measure(engines, made, turns.best(tried), repeats)
        near = fidelity.measure(engines, len(made["fidelity"]["texts"]), work)
        memory = {entry.name: engine.peak_mib() for entry, engine in engines.items()}
        over_http = []
        for entry in [entry for entry in engines if entry.is_ours and "http-A" in made]:
            serve = [BINARY, "serve", "--port", "0", *flags(said, entry, model)]
            over_http += http_load.measure(entry, engines[entry], serve, made, work, repeats)
    finally:
        for engine in engines.values():
            engine.close()
    level = next((engine.told["level"] for entry, engine in engines.items() if entry.is_ours), None)
    found = {"model": name, "level": level, "absent": absent, "peak": peak, "tried": tried, "measured": measured, "fidelity": near, "memory": memory, "http": over_http}
    report.write(said, found, made)


if __name__ == "__main__":
    said = arguments()
    for name in said.models.split(","):
        compare(said, name)
