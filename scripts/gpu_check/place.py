"""Where things lie: in the packed folder, or in the source tree when it is rehearsed there."""

import os
import pathlib
import site
import sys

# The packed folder has scripts/ in it like the source tree.
ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKED = (ROOT / "manifest.json").exists()
# Checkpoints with golden vectors beside them: FAMILY/NAME/ each, and MiniLM.
TINY = ROOT / ("tests/it/tiny" if PACKED else "target/gpu-check/tiny")
MINILM = ROOT / ("minilm" if PACKED else "target/gpu-check/minilm")


def binary() -> pathlib.Path:
    """The server."""
    return ROOT / "bin/vecmill" if PACKED else first("VECMILL", "target/cuda/release/vecmill", "target/release/vecmill", "target/debug/vecmill")


def kernels() -> pathlib.Path:
    """The tests of tests/it, which hold those of the kernels, as a program."""
    return ROOT / "bin/kernels" if PACKED else first("VECMILL_KERNELS", "target/gpu-check/kernels")


def first(variable: str, *paths: str) -> pathlib.Path:
    said = os.environ.get(variable)
    found = [pathlib.Path(said)] if said else [ROOT / path for path in paths if (ROOT / path).exists()]
    return found[0] if found else sys.exit(f"gpu-check: none of {', '.join(paths)} exists; build one, or name it with {variable}")


def find_cuda_libraries() -> None:
    """Puts the libraries inside NVIDIA's Python packages where the programs started from here find them."""
    folders = [pathlib.Path(folder) for folder in [*site.getsitepackages(), site.getusersitepackages()]]
    found = sorted(str(path) for folder in folders for path in folder.glob("nvidia/*/lib"))
    known = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path]
    os.environ["LD_LIBRARY_PATH"] = ":".join([*known, *(path for path in found if path not in known)])


def scratch(args) -> pathlib.Path:
    """For checkpoints that are made here."""
    folder = args.out / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
