"""Gathers on the build machine what the machine with the GPU needs, in two archives that together are at most 64 MiB."""

import hashlib
import json
import lzma
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

from . import checkpoints, place, results

LIMIT_BYTES = 64 << 20
PARTS = {"gpu-check-1": ["manifest.json", "bin", "scripts", "tests"], "gpu-check-2": ["minilm"]}
# The two programs share most of their code: the window is as wide as both.
FILTERS = [{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": 128 << 20}]


def pack(out: pathlib.Path) -> None:
    """OUT_DIR/gpu-check/ is the folder to be, OUT_DIR/*.tar.xz are its parts: programs with the small checkpoints, and MiniLM."""
    target = out / "gpu-check"
    shutil.rmtree(target, ignore_errors=True)
    (target / "bin").mkdir(parents=True)
    # In this order: the tests' build leaves a server with their features behind.
    strip(server(), target / "bin/vecmill")
    strip(kernels(), target / "bin/kernels")
    scripts = target / "scripts"
    shutil.copytree(place.ROOT / "scripts/gpu_check", scripts / "gpu_check", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(place.ROOT / "scripts/gpu-check", scripts / "gpu-check")
    checkpoints.make(target / "tests/it/tiny", target / "minilm")
    files = sorted(path for path in target.rglob("*") if path.is_file())
    sums = {str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (target / "manifest.json").write_text(json.dumps({"commit": results.commit(), "sha256": sums}, indent=1) + "\n")
    archive(out, target)
    print("there: for part in gpu-check-*.tar.xz; do tar xf $part; done && cd gpu-check && scripts/gpu-check all")


def archive(out: pathlib.Path, folder: pathlib.Path) -> None:
    total = 0
    for name, parts in PARTS.items():
        path = out / f"{name}.tar.xz"
        with lzma.open(path, "w", filters=FILTERS) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
            for part in parts:
                tar.add(folder / part, f"gpu-check/{part}")
        total += path.stat().st_size
        print(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")
    print(f"together {total / 2**20:.1f} MiB")
    if total > LIMIT_BYTES:
        raise SystemExit("gpu-check: that is over 64 MiB")


def strip(source: pathlib.Path, target: pathlib.Path) -> None:
    subprocess.run(["strip", "--strip-all", "-o", str(target), str(source)], check=True)
    target.chmod(0o755)


def server() -> pathlib.Path:
    """The program of scripts/cuda-build, brought up to date; or the one that VECMILL names."""
    if said := os.environ.get("VECMILL"):
        return pathlib.Path(said)
    cargo("build --features cuda")
    return place.ROOT / "target/cuda/release/vecmill"


def kernels() -> pathlib.Path:
    """The tests as a program that runs kernels on a GPU, and without one on the processor; or the one that VECMILL_KERNELS names."""
    if said := os.environ.get("VECMILL_KERNELS"):
        return pathlib.Path(said)
    told = cargo("test --features cuda,device-emulation --test it --no-run")
    return place.ROOT / re.search(r"Executable .*\((.+?/it-[0-9a-f]+)\)", told)[1]


def cargo(command: str) -> str:
    """In the folder of scripts/cuda-build, with its toolchain; gives what cargo says."""
    script = f". target/cuda-toolchain/env && cargo {command} --release --locked --target-dir target/cuda 2>&1"
    done = subprocess.run(["bash", "-c", script], cwd=place.ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"gpu-check: not built (scripts/cuda-build goes first): {done.stdout[-2000:]}")
    return done.stdout
