"""What peers that are bare graphs need around them, at its best: tokens by the model's own tokenizer, batches, padding, and their order."""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
from models import MAX_TOKENS


class Absent(Exception):
    """Why a peer cannot run on this machine."""


class Batches:
    """Encodes by what `make(apart)` gives: it takes the tokens of each text of a batch and gives unit vectors `[B, C]`.

    A setting says the texts of a batch, whether they are sorted by their length first, and whether batches run apart, each on one thread and as many
    at once as there are threads, or one after the other on all threads together.
    """

    def __init__(self, model, threads, make):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.no_padding()
        self.inputs = inputs(model)
        self.make, self.runs = make, {}
        self.pool = ThreadPoolExecutor(threads)

    def encode(self, texts, setting):
        ids = [encoding.ids for encoding in self.tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda text: len(ids[text])) if setting["sorted"] else list(range(len(ids)))
        parts = [order[start : start + setting["batch"]] for start in range(0, len(order), setting["batch"])]
        # Each way holds the weights once more: made when it is first asked for.
        run = self.runs.get(setting["apart"]) or self.runs.setdefault(setting["apart"], self.make(setting["apart"]))
        if setting["apart"]:
            # Longest first, so that no thread waits at the end for another's long batch.
            parts = parts[::-1] if setting["sorted"] else parts
            rows = self.pool.map(lambda part: run([ids[text] for text in part]), parts)
        else:
            rows = (run([ids[text] for text in part]) for part in parts)
        rows = np.concatenate(list(rows))
        vectors = np.empty_like(rows)
        vectors[[text for part in parts for text in part]] = rows
        return vectors


def config(model):
    """What config.json says."""
    return json.loads((model / "config.json").read_text())


def inputs(model):
    """The names of what the model's graph takes."""
    has_types = "type_vocab_size" in config(model)
    return ["input_ids", "attention_mask"] + ["token_type_ids"] * has_types


def padded(ids, names):
    """The arrays of these names, of int64."""
    width = max(map(len, ids))
    tokens, mask = np.zeros((len(ids), width), np.int64), np.zeros((len(ids), width), np.int64)
    for row, own in enumerate(ids):
        tokens[row, : len(own)] = own
        mask[row, : len(own)] = 1
    known = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(tokens)}
    return {name: known[name] for name in names}


def mean_of(hidden, lengths):
    """Unit vectors from what the last layer gives, `[B, S, C]`, by the mean over each text's tokens."""
    kept = (np.arange(hidden.shape[1])[None, :] < np.asarray(lengths)[:, None]).astype(hidden.dtype)
    sums = np.einsum("bsc,bs->bc", hidden, kept)
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def has(*flags):
    """Whether the processor has one of these features."""
    known = set(open("/proc/cpuinfo").read().split())
    return any(flag in known for flag in flags)


def need_bf16():
    """Ends a peer's bf16 where no instruction multiplies it."""
    if not has("avx512_bf16", "amx_bf16"):
        raise Absent("this processor has no bf16 instructions")


def made(path, make, *args):
    """The path, made by `make(path, *args)` if it is not there: in a process of its own, so that the engine's memory is the engine's alone."""
    if not path.exists():
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as own:
            own.submit(make, path, *args).result()
    return path
