"""The models: MiniLM with its real weights, and one of BERT-base's shape with random ones; both as directories that every engine reads.

Both take texts of up to 512 tokens, for us and for the peers alike: sentence-transformers and Vecmill read `max_seq_length` from the same file.
"""

import json
import pathlib
import shutil
import subprocess

MAX_TOKENS = 512
# Layers, width, and the width of the MLP over that of the model.
SHAPES = {"minilm": (6, 384, 4), "bert-base": (12, 768, 4)}
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
    shutil.copytree(source, place, ignore=shutil.ignore_patterns("model.safetensors") if name != "minilm" else None)
    limit = place / "sentence_bert_config.json"
    limit.write_text(json.dumps(json.loads(limit.read_text()) | {"max_seq_length": MAX_TOKENS}))
    if name != "minilm":
        random_weights(place, *SHAPES[name])
    return place


def random_weights(place: pathlib.Path, layers: int, width: int, factor: int):
    """BERT of this shape with weights from a seed, in place of the model's own; the tokenizer stays."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": factor * width, "num_attention_heads": width // 64}
    BertModel(BertConfig(**shape, position_embedding_type="absolute"), add_pooling_layer=False).save_pretrained(place)
    pooling = place / "1_Pooling/config.json"
    pooling.write_text(json.dumps(json.loads(pooling.read_text()) | {"word_embedding_dimension": width}))


def flop(name: str, tokens: list[int]) -> float:
    """Floating-point operations on real tokens: the products of weights, and attention, which grows with a text's length."""
    layers, width, factor = SHAPES[name]
    per_token = layers * width * width * (8 + 4 * factor)
    return sum(length * (per_token + 4 * layers * width * length) for length in tokens)
