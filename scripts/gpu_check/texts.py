"""Texts of known numbers of tokens, made of words that are one token each in the tokenizer that all checkpoints of a visit share."""

import json
import random

from . import place

# [CLS] and [SEP].
SPECIAL = 2


def words() -> list[str]:
    vocabulary = json.loads((place.MINILM / "tokenizer.json").read_text())["model"]["vocab"]
    return sorted(word for word in vocabulary if word.isascii() and word.isalpha() and word.islower() and len(word) > 2)


def lengths(kind: str, mean: int, longest: int, count: int) -> list[int]:
    """`equal`: all the same. `skewed`: lognormal as in real collections, many short and few long, about the same mean."""
    if kind == "equal":
        return [mean] * count
    dice, sigma = random.Random(mean), 0.8
    drawn = [mean * dice.lognormvariate(-sigma * sigma / 2, sigma) for _ in range(count)]
    return [max(SPECIAL + 1, min(longest, round(length))) for length in drawn]


def made(sizes: list[int], seed: int) -> list[str]:
    """One text for each size in tokens, special tokens included."""
    dice, known = random.Random(seed), words()
    return [" ".join(dice.choices(known, k=size - SPECIAL)) for size in sizes]
