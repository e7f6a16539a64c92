"""The models: MiniLM with its real weights, and shapes of others with random ones; all as directories that every engine reads.

All take texts of up to 512 tokens, for us and for the peers alike: sentence-transformers and Vecmill read `max_seq_length` from the same file. All have
MiniLM's tokenizer, and as many word vectors as it has words: those of its models that have more would be memory that no text asks for.
"""

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2] / "scripts"))
from gpu_check import shapes  # noqa: E402

MAX_TOKENS = 512
SOURCE = "all-MiniLM-L6-v2"


def directory(name: str, binary: pathlib.Path, cache: pathlib.Path, work: pathlib.Path) -> pathlib.Path:
    """The model's directory below `work`, made if it is not there."""
    place = work / "models" / name
    if (place / "model.safetensors").exists():
        return place
    source = cache / "models" / SOURCE
    if not (source / "model.safetensors").exists():
        subprocess.run([binary, "pull", SOURCE, "--cache-dir", cache], check=True)
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    if name != "minilm":
        random_weights(name, place, source)
        return place
    shutil.copytree(source, place)
    limit = place / "sentence_bert_config.json"
    limit.write_text(json.dumps(json.loads(limit.read_text()) | {"max_seq_length": MAX_TOKENS}))
    return place


def random_weights(name: str, place: pathlib.Path, source: pathlib.Path):
    """A model of this shape with weights from a seed, in f32."""
    import torch

    words = shapes.SHAPES["minilm"].vocabulary
    shapes.make(dataclasses.replace(shapes.SHAPES[name], vocabulary=words), place, torch.float32, source, MAX_TOKENS)


def flop(name: str, tokens: list[int]) -> float:
    """Floating-point operations on real tokens: the products of weights, and attention to what a token sees, which grows with a text's length."""
    return shapes.SHAPES[name].flops(tokens)
