"""The real weights of every card, through a server: the reference's vectors for the golden texts, in whatever batches the server makes of them."""

import json
import pathlib
import struct
import tomllib

import httpx
import numpy
import pytest
from conftest import ANSWER_S, Server

MODELS = pathlib.Path(__file__).resolve().parents[2] / "models"
# The largest error of a component, in parts of what components usually are: for a unit vector of 384 numbers 5e-6.
MAX_ERROR, MIN_COSINE = 1e-4, 0.99999
# So few that the longest of them are done in time also on a slow, busy machine.
TEXTS_PER_REQUEST = 5


def tensor(path: pathlib.Path, name: str) -> numpy.ndarray:
    """A tensor of f32 numbers out of a safetensors file."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + length])[name]
    assert entry["dtype"] == "F32"
    start, end = entry["data_offsets"]
    return numpy.frombuffer(data[8 + length + start : 8 + length + end], "<f4").reshape(entry["shape"])


@pytest.mark.parametrize("name", sorted(path.parent.name for path in MODELS.glob("*/golden.json")))
def test_golden_vectors(name, tmp_path):
    slug = tomllib.loads((MODELS / name / "card.toml").read_text())["repo"]
    items = json.loads((MODELS / name / "golden.json").read_text())["items"]
    want = tensor(MODELS / name / "golden.safetensors", "embeddings")
    config = tmp_path / "vecmill.toml"
    config.write_text(f'[models."{slug}"]\ntruncate = "end"\nempty_input = "embed"\n')
    server = Server(tmp_path, "--model", name, "--config", str(config), "--dtype", "f32")
    try:
        rows, tokens = [], 0
        for start in range(0, len(items), TEXTS_PER_REQUEST):
            body = {"model": slug, "input": [item["text"] for item in items[start : start + TEXTS_PER_REQUEST]]}
            answer = httpx.post(server.base + "/v1/inference/embed", json=body, timeout=ANSWER_S)
            assert answer.status_code == 200, answer.text
            data = answer.json()["data"]
            rows += [row["embedding"] for row in sorted(data["data"], key=lambda row: row["index"])]
            tokens += data["usage"]["prompt_tokens"]
    finally:
        server.terminate()
        server.wait()
    got = numpy.array(rows, "<f4")
    assert tokens == sum(item["tokens"] for item in items)
    max_abs, usual = float(numpy.abs(got - want).max()), float(numpy.sqrt((want**2).mean()))
    # A text without a known token may be a zero vector, which has no direction.
    lengths = numpy.linalg.norm(got, axis=1) * numpy.linalg.norm(want, axis=1)
    cosines = (got * want).sum(1)[lengths > 0] / lengths[lengths > 0]
    print(f"{name}: {len(items)} golden texts, max abs error {max_abs:.3e}, min cosine {cosines.min():.8f}")
    assert max_abs <= MAX_ERROR * usual and cosines.min() >= MIN_COSINE
