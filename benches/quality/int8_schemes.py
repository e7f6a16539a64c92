"""Why int8 is quantised as it is: schemes of quantising a BERT, tried in NumPy on the model's own weights.

    python benches/quality/int8_schemes.py --directory DIR [--model all-MiniLM-L6-v2] [--every 2] [--out benches/runs/<date>-<machine>]

For each scheme: the least and mean cosine to f32 and of how many texts the nearest other text is the same, over the texts of int8.py cut to 128 tokens.
Whole numbers are imitated in f32: each operand is rounded and multiplied as what it stands for. The server's own numbers are int8.py's.
Needs numpy, safetensors and tokenizers.
"""

import argparse
import datetime
import pathlib
import tempfile

import numpy as np
from int8 import compare, texts
from quality import fetch
from safetensors.numpy import load_file
from tokenizers import Tokenizer

TOKENS = 128
GROUP = 12
HEADS = 12
PRODUCTS = ("qkv", "out", "up", "down")


def groups(of):
    """Steps for so many neighbouring numbers on both sides."""
    return {"operand_group": of, "weight_group": of}


# What a scheme changes of: the operand from least to most of its row in 8 bits, weights symmetric by column in 8 bits, all four products.
SCHEMES = {
    "operand symmetric": {"least": False},
    "operand from least to most, weights by column": {},
    "+ weight steps of least squared error": {"search": True},
    "+ bias of the norm subtracted first": {"shift": True},
    "+ SmoothQuant 0.5": {"smooth": 0.5},
    "+ SmoothQuant 0.7": {"smooth": 0.7},
    "+ groups of 128 on both sides": {"operand_group": 128, "weight_group": 128},
    "+ groups of 64 on both sides": {"operand_group": 64, "weight_group": 64},
    "+ groups of 64, operand": {"operand_group": 64},
    "+ groups of 64, weights": {"weight_group": 64},
    "all but qkv in int8": {"only": ("out", "up", "down")},
    "all but out in int8": {"only": ("qkv", "up", "down")},
    "all but up in int8": {"only": ("qkv", "out", "down")},
    "all but down in int8": {"only": ("qkv", "out", "up")},
    "only the operand in int8": {"weight_bits": 16},
    "only the weights in int8": {"operand_bits": 16},
    "+ spread over 8": {"spread": 8},
    "+ spread over 32": {"spread": 32},
    "+ spread over 128": {"spread": 128},
    "+ spread over 512": {"spread": 512},
    "+ spread over 128, no signs": {"spread": 128, "signs": False},
    "+ spread over 128, weight steps of least squared error": {"spread": 128, "search": True},
    "+ spread over 128, groups of 128": {"spread": 128, "operand_group": 128, "weight_group": 128},
    "+ spread over 64": {"spread": 64},
    "+ spread over 64, groups of 64": {"spread": 64, **groups(64)},
    "+ spread over 64, groups of 64, operand symmetric": {"spread": 64, **groups(64), "least": False},
    "+ the same in groups of 256 (what the server does with VNNI)": {"spread": 64, **groups(256), "least": False},
    "+ the same in groups of 64, two products in 16 bits (what it does without)": {"spread": 64, **groups(64), "zero": 95, "added": 2},
    "+ the same in groups of 128, two products in 16 bits": {"spread": 64, **groups(128), "zero": 95, "added": 2},
    "+ the same in groups of 64, four products in 16 bits": {"spread": 64, **groups(64), "zero": 75, "added": 4},
}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a BERT with a folder in models/")
    parser.add_argument("--directory", type=pathlib.Path, required=True, help="its weights and tokenizer")
    parser.add_argument("--every", type=int, default=2, help="every Nth text only")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results: benches/runs/<date>-<machine>")
    return parser.parse_args()


def gelu(x):
    """With the erf, by Abramowitz and Stegun 7.1.26."""
    z = np.abs(x) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * z)
    p = np.zeros_like(t)
    for c in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        p = (p + np.float32(c)) * t if c != 1.061405429 else np.float32(c) * t
    half = np.float32(0.5) * p * np.exp(-z * z)
    return x * np.where(x < 0, half, 1 - half)


def norm(x, weight, bias, eps):
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + np.float32(eps)) * weight + bias


def in_groups(quantise, x, group):
    if not group:
        return quantise(x)
    return np.concatenate([quantise(x[:, start : start + group]) for start in range(0, x.shape[1], group)], axis=1)


def operand(x, scheme):
    bits = scheme.get("operand_bits", 8)

    def quantise(x):
        if scheme.get("least", "zero" not in scheme):
            least = x.min(axis=1, keepdims=True)
            step = np.maximum((x.max(axis=1, keepdims=True) - least) / (2**bits - 1), 1e-20)
            return np.rint((x - least) / step) * step + least
        step = np.maximum(np.abs(x).max(axis=1, keepdims=True) / scheme.get("zero", 2 ** (bits - 1) - 1), 1e-20)
        return np.rint(x / step) * step

    return in_groups(quantise, x, scheme.get("operand_group"))


def in_sixteen(w, scheme):
    """The least step for which no sum of so many neighbouring products leaves 16 bits, half of each rounding allowed for."""
    if "added" not in scheme:
        return 0
    sums = [np.maximum(sign * w, 0).reshape(len(w), -1, scheme["added"]).sum(axis=2).max(axis=1, keepdims=True) for sign in (1, -1)]
    return np.maximum(*sums) / (32767 // (2 * scheme["zero"]) - scheme["added"] / 2)


def weights(w, scheme):
    most = 2 ** (scheme.get("weight_bits", 8) - 1) - 1

    def quantise(w):
        whole = np.maximum(np.abs(w).max(axis=1, keepdims=True), 1e-20)
        best, least = None, np.inf
        for share in np.arange(0.5, 1.01, 0.02) if scheme.get("search") else [1.0]:
            step = np.maximum(np.float32(share) * whole / most, in_sixteen(w, scheme))
            tried = np.clip(np.rint(w / step), -most, most) * step
            error = ((tried - w) ** 2).sum(axis=1, keepdims=True)
            best, least = (tried, error) if best is None else (np.where(error < least, tried, best), np.minimum(error, least))
        return best

    return in_groups(quantise, w, scheme.get("weight_group"))


def spread(x, scheme):
    """Random signs and a Hadamard matrix over blocks."""
    inner = x.shape[1]
    block = min(inner & -inner, scheme["spread"])
    hadamard = np.ones((1, 1), dtype=np.float32)
    while len(hadamard) < block:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = np.random.default_rng(1).choice(np.float32([-1, 1]), inner) if scheme.get("signs", True) else np.float32(1)
    return ((x * signs).reshape(-1, block) @ (hadamard / np.float32(block**0.5))).reshape(x.shape)


class Product:
    """One linear map under a scheme. `mean` and `size` are what the weights before it say of its operand by inner dimension."""

    def __init__(self, scheme, w, b, mean, size):
        self.scheme, self.shift, self.divide = scheme, None, None
        if scheme is not None and scheme.get("shift"):
            self.shift, b = mean, b + w @ mean
        if scheme is not None and scheme.get("smooth"):
            share = scheme["smooth"]
            divide = np.maximum(size, 1e-5) ** share / np.maximum(np.abs(w).max(axis=0), 1e-5) ** (1 - share)
            self.divide = (divide / np.exp(np.log(divide).mean())).astype(np.float32)
            w = w * self.divide
        if scheme is not None and scheme.get("spread"):
            w = spread(w, scheme)
        self.w, self.b = (w if scheme is None else weights(w, scheme)).T.copy(), b

    def __call__(self, x):
        if self.scheme is None:
            return x @ self.w + self.b
        if self.shift is not None:
            x = x - self.shift
        if self.divide is not None:
            x = x / self.divide
        if self.scheme.get("spread"):
            x = spread(x, self.scheme)
        return operand(x, self.scheme) @ self.w + self.b


class Bert:
    def __init__(self, table, scheme):
        self.table, self.layers = table, []
        only = PRODUCTS if scheme is None else scheme.get("only", PRODUCTS)
        of = lambda product: scheme if product in only else None
        self.first = (table["embeddings.LayerNorm.weight"], table["embeddings.LayerNorm.bias"])
        before = self.first
        while f"encoder.layer.{len(self.layers)}.output.dense.weight" in table:
            part = lambda name, layer=len(self.layers): (table[f"encoder.layer.{layer}.{name}.weight"], table[f"encoder.layer.{layer}.{name}.bias"])
            maps = [part(f"attention.self.{name}") for name in ("query", "key", "value")]
            (value, value_bias), after, last = maps[2], part("attention.output.LayerNorm"), part("output.LayerNorm")
            up, up_bias = part("intermediate.dense")
            normed = lambda norm: (norm[1], np.sqrt(norm[0] ** 2 + norm[1] ** 2))
            # Behind a map and GELU: by quadrature over a normal distribution of what goes in.
            z = np.linspace(-2.5, 2.5, 11, dtype=np.float32)[:, None]
            density = np.exp(-z * z / 2) / np.exp(-z * z / 2).sum()
            inner = gelu(up @ after[1] + up_bias + np.sqrt(((up * after[0]) ** 2).sum(axis=1)) * z)
            self.layers.append({
                "qkv": Product(of("qkv"), *(np.concatenate(own) for own in zip(*maps, strict=True)), *normed(before)),
                "out": Product(of("out"), *part("attention.output.dense"), value @ before[1] + value_bias, np.sqrt(((value * before[0]) ** 2).sum(axis=1))),
                "up": Product(of("up"), up, up_bias, *normed(after)),
                "down": Product(of("down"), *part("output.dense"), (inner * density).sum(axis=0), np.sqrt((inner**2 * density).sum(axis=0))),
                "after": after,
                "last": last,
            })
            before = last

    def __call__(self, ids, eps=1e-12):
        ends = np.cumsum([len(own) for own in ids])
        cuts = list(zip(ends - [len(own) for own in ids], ends, strict=True))
        name = "embeddings.{}.weight".format
        x = self.table[name("word_embeddings")][np.concatenate(ids)] + self.table[name("token_type_embeddings")][0]
        x = norm(x + np.concatenate([self.table[name("position_embeddings")][: len(own)] for own in ids]), *self.first, eps)
        for layer in self.layers:
            qkv, mixed = layer["qkv"](x), np.empty_like(x)
            for start, end in cuts:
                q, k, v = (own.reshape(end - start, HEADS, -1).transpose(1, 0, 2) for own in np.split(qkv[start:end], 3, axis=1))
                scores = q @ k.transpose(0, 2, 1) * np.float32(q.shape[2] ** -0.5)
                shares = np.exp(scores - scores.max(axis=2, keepdims=True))
                mixed[start:end] = ((shares / shares.sum(axis=2, keepdims=True)) @ v).transpose(1, 0, 2).reshape(end - start, -1)
            x = norm(x + layer["out"](mixed), *layer["after"], eps)
            x = norm(x + layer["down"](gelu(layer["up"](x))), *layer["last"], eps)
        return np.stack([x[start:end].mean(axis=0) for start, end in cuts])


def main():
    said = arguments()
    tokenizer = Tokenizer.from_file(str(said.directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(TOKENS)
    with tempfile.TemporaryDirectory() as folder:
        sets = texts(said.model, fetch(pathlib.Path(folder)))
    ids = dict.fromkeys(tuple(tokenizer.encode(text).ids) for own in sets.values() for text in own)
    ids = [list(own) for own in ids][:: said.every]
    table = load_file(said.directory / "model.safetensors")

    def embed(scheme):
        bert = Bert(table, scheme)
        return np.concatenate([bert(ids[start : start + GROUP]) for start in range(0, len(ids), GROUP)])

    exact = embed(None)
    rows = ["| scheme | min cosine | mean cosine | same nearest text |", "|---|---|---|---|"]
    for name, scheme in SCHEMES.items():
        rows.append("| {} | {min:.5f} | {mean:.6f} | {top1:.1%} |".format(name, **compare(exact, embed(scheme))))
        print(rows[-1], flush=True)
    head = f"# schemes of int8, {said.model}\n\n{len(ids)} texts of at most {TOKENS} tokens, {sum(map(len, ids))} tokens, in NumPy. {datetime.date.today()}.\n\n"
    if said.out:
        said.out.mkdir(parents=True, exist_ok=True)
        (said.out / "int8-schemes.md").write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
