"""CTranslate2, which leaves padding out of its products: f32, and int8 with activations quantised as they come."""

import ctranslate2
import numpy as np
from batches import Batches, made, mean_of, need_bf16

TYPES = {"f32": "float32", "bf16": "bfloat16", "int8": "int8_float32"}


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        if kind == "bf16":
            need_bf16()
        path = made(work / "ctranslate2", convert, model)
        own = {"device": "cpu", "compute_type": TYPES[kind]}
        self.encoders = [
            ctranslate2.Encoder(str(path), **own, inter_threads=1, intra_threads=threads),
            ctranslate2.Encoder(str(path), **own, inter_threads=threads, intra_threads=1),
        ]
        super().__init__(model, threads, self.forward)

    def forward(self, ids, apart):
        hidden = np.array(self.encoders[apart].forward_batch(ids).last_hidden_state)
        return mean_of(hidden, [len(own) for own in ids])


def convert(path, model):
    ctranslate2.converters.TransformersConverter(str(model)).convert(str(path))
