"""What `pack` puts in beside the programs: small checkpoints and MiniLM, each with golden vectors. Only the standard library."""

import json
import pathlib
import shutil
import struct

from . import place

SOURCE = place.ROOT / "tests/it/tiny"
CARD = place.ROOT / "models/all-MiniLM-L6-v2"
WORDS = "embeddings.word_embeddings.weight"


def read_safetensors(path: pathlib.Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def write_safetensors(path: pathlib.Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            out.write(data)


def make(tiny: pathlib.Path, minilm: pathlib.Path) -> None:
    """Writes both folders anew."""
    for folder in (tiny, minilm):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for source in sorted(SOURCE.glob("*/*/reference.json")):
        make_tiny(source.parent, tiny / source.parent.relative_to(SOURCE))
    make_minilm(minilm)


def make_tiny(source: pathlib.Path, target: pathlib.Path) -> None:
    """The checkpoint as it is, and its reference as goldens. Goldens know no tasks: texts with one are left to the step `law`."""
    shutil.copytree(source, target)
    reference = json.loads((target / "reference.json").read_text())
    header, data = read_safetensors(target / "reference.safetensors")
    first, row = header["embeddings"]["data_offsets"][0], 4 * reference["dim"]
    chosen = [index for index, case in enumerate(reference["cases"]) if not case.get("adapter")]
    items = [{**reference["cases"][index], "tokens": len(reference["cases"][index]["ids"])} for index in chosen]
    rows = b"".join(data[first + index * row : first + (index + 1) * row] for index in chosen)
    (target / "golden").mkdir()
    record = {"max_tokens": reference["max_tokens"], "items": items}
    (target / "golden/golden.json").write_text(json.dumps(record))
    write_safetensors(target / "golden/golden.safetensors", {"embeddings": ("F32", [len(chosen), reference["dim"]], rows)})


def make_minilm(target: pathlib.Path) -> None:
    """The real weights, made to fit the journey: rounded to f16, and zeros for words that no golden text has. The goldens are those of the f32 weights."""
    cached = cache() / "models/all-MiniLM-L6-v2"
    if not cached.exists():
        raise SystemExit("gpu-check: the real MiniLM is not cached: run `vecmill pull all-MiniLM-L6-v2` first")
    shutil.copytree(cached, target, dirs_exist_ok=True)
    header, data = read_safetensors(cached / "model.safetensors")
    tensors = {}
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        begin, end = tensor["data_offsets"]
        tensors[name] = (tensor["dtype"], tensor["shape"], data[begin:end])
        if tensor["dtype"] == "F32":
            numbers = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
            tensors[name] = ("F16", tensor["shape"], struct.pack(f"<{len(numbers)}e", *numbers))
    dtype, (words, width), rows = tensors[WORDS]
    kept = golden_ids()
    rows = b"".join(rows[2 * width * id : 2 * width * (id + 1)] if id in kept else bytes(2 * width) for id in range(words))
    tensors[WORDS] = (dtype, [words, width], rows)
    write_safetensors(target / "model.safetensors", tensors)
    (target / "golden").mkdir(exist_ok=True)
    for name in ("golden.json", "golden.safetensors"):
        shutil.copy(CARD / name, target / "golden" / name)


def golden_ids() -> set[int]:
    header, data = read_safetensors(CARD / "golden.safetensors")
    begin, end = header["ids"]["data_offsets"]
    return set(struct.unpack(f"<{(end - begin) // 4}i", data[begin:end]))


def cache() -> pathlib.Path:
    import os

    said = os.environ.get("VECMILL_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(said) if said else pathlib.Path(base) / "vecmill"


def ensure() -> None:
    """In the source tree the folders are made when a step first asks for them."""
    if not place.PACKED and not (place.MINILM / "golden").exists():
        make(place.TINY, place.MINILM)


def small(args) -> dict[str, pathlib.Path]:
    """The small checkpoints by name, `FAMILY--NAME`; a rehearsal takes one of each family."""
    ensure()
    folders = sorted(path for path in place.TINY.glob("*/*") if path.is_dir())
    folders = list({folder.parent: folder for folder in folders}.values()) if args.small else folders
    return {f"{folder.parent.name}--{folder.name}": folder for folder in folders}
