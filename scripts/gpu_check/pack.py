"""Gathers on the build machine what the machine with the GPU needs, in archives that are each at most 64 MiB."""

import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import tarfile

from . import checkpoints, place, results

LIMIT_BYTES = 64 << 20


def pack(out: pathlib.Path) -> None:
    """OUT_DIR/gpu-check/ is the folder to be, OUT_DIR/*.tar.xz are its parts: programs with the small checkpoints, and MiniLM."""
    target = out / "gpu-check"
    shutil.rmtree(target, ignore_errors=True)
    (target / "bin").mkdir(parents=True)
    strip(place.binary(), target / "bin/vecmill")
    strip(kernels(), target / "bin/kernels")
    scripts = target / "scripts"
    shutil.copytree(place.ROOT / "scripts/gpu_check", scripts / "gpu_check", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(place.ROOT / "scripts/gpu-check", scripts / "gpu-check")
    checkpoints.make(target / "tiny", target / "minilm")
    files = sorted(path for path in target.rglob("*") if path.is_file())
    sums = {str(path.relative_to(target)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    (target / "manifest.json").write_text(json.dumps({"commit": results.commit(), "sha256": sums}, indent=1) + "\n")
    for name, parts in {"gpu-check-1": ["manifest.json", "bin", "scripts", "tiny"], "gpu-check-2": ["minilm"]}.items():
        archive = out / f"{name}.tar.xz"
        with tarfile.open(archive, "w:xz", preset=6) as tar:
            for part in parts:
                tar.add(target / part, f"gpu-check/{part}")
        size = archive.stat().st_size
        print(f"{archive}: {size / 2**20:.1f} MiB")
        if size > LIMIT_BYTES:
            raise SystemExit(f"gpu-check: {archive} is over 64 MiB")
    print("there: for part in gpu-check-*.tar.xz; do tar xf $part; done && cd gpu-check && scripts/gpu-check all")


def strip(source: pathlib.Path, target: pathlib.Path) -> None:
    subprocess.run(["strip", "--strip-all", "-o", str(target), str(source)], check=True)
    target.chmod(0o755)


def kernels() -> pathlib.Path:
    """The unit tests as a program, built for the GPU where the toolchain of scripts/cuda-build is there."""
    said = os.environ.get("VECMILL_KERNELS")
    if said:
        return pathlib.Path(said)
    script = ". target/cuda-toolchain/env && cargo test --release --locked --features cuda --target-dir target/cuda --lib --no-run 2>&1"
    done = subprocess.run(["bash", "-c", script], cwd=place.ROOT, capture_output=True, text=True)
    found = re.search(r"Executable .*\((.+?/vecmill-[0-9a-f]+)\)", done.stdout)
    if done.returncode or not found:
        raise SystemExit(f"gpu-check: the kernels' tests were not built (scripts/cuda-build goes first):\n{done.stdout[-2000:]}")
    return place.ROOT / found[1]
