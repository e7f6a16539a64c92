"""sentence-transformers on torch, as its users call it. It sorts by length itself; unsorted, it is given one batch at a time."""

import numpy as np
import torch
from batches import need_bf16
from sentence_transformers import SentenceTransformer

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


class Engine:
    def __init__(self, kind, model, work, threads):
        if kind == "bf16":
            need_bf16()
        torch.set_num_threads(threads)
        self.model = SentenceTransformer(str(model), device="cpu", model_kwargs={"dtype": DTYPES[kind]}, local_files_only=True)

    def encode(self, texts, setting):
        batch = setting["batch"]
        own = {"batch_size": batch, "normalize_embeddings": True, "show_progress_bar": False}
        if setting["sorted"]:
            return self.model.encode(texts, **own)
        return np.concatenate([self.model.encode(texts[start : start + batch], **own) for start in range(0, len(texts), batch)])
