"""CTranslate2, which leaves padding out of its products: f32, and int8 with activations quantised as they come."""

import ctranslate2
import numpy as np
from batches import Absent, Batches, config, made, mean_of, need_bf16

TYPES = {"f32": "float32", "bf16": "bfloat16", "int8": "int8_float32"}
DECODERS = ("qwen3",)


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        if kind == "bf16":
            need_bf16()
        if config(model)["model_type"] in DECODERS:
            raise Absent("it gives a decoder's logits, not the hidden states that are pooled")
        path = made(work.parent / "ctranslate2", convert, model)
        own = {"device": "cpu", "compute_type": TYPES[kind]}
        super().__init__(model, threads, lambda apart: encoder(path, own, *((threads, 1) if apart else (1, threads))))


def encoder(path, own, at_once, threads):
    """Runs a batch on so many threads, so many at once."""
    encoder = ctranslate2.Encoder(str(path), **own, inter_threads=at_once, intra_threads=threads)

    def forward(ids):
        hidden = np.array(encoder.forward_batch(ids).last_hidden_state)
        return mean_of(hidden, [len(own) for own in ids])

    return forward


def convert(path, model):
    ctranslate2.converters.TransformersConverter(str(model)).convert(str(path))
