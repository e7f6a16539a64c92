"""Texts to vectors over HTTP, and the one flow that all indexes here share: cut, embed, store; then embed the question and look for its neighbours."""

import os
import sys
import time
from collections.abc import Sequence
from typing import Protocol

import httpx
from passages import Passage, corpus

Vector = list[float]
# Few calls for many texts: one call counts once against a rate limit.
BATCH = 100


class Embedder:
    """A server and a model. `VECMILL_URL`, `VECMILL_KEY` and `VECMILL_MODEL` say which."""

    def __init__(self) -> None:
        base = os.environ.get("VECMILL_URL", "http://127.0.0.1:8000")
        key = os.environ.get("VECMILL_KEY", "none")
        self.model = os.environ.get("VECMILL_MODEL", "sentence-transformers/all-MiniLM-L6-v2")
        self.client = httpx.Client(base_url=base, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def documents(self, texts: Sequence[str]) -> tuple[list[Vector], str]:
        """Vectors to store, and the space that they lie in."""
        vectors: list[Vector] = []
        space = None
        for start in range(0, len(texts), BATCH):
            # From the second call on a model that was changed in between is refused.
            more, space = self._embed(texts[start : start + BATCH], "document", space)
            vectors += more
        return vectors, space or ""

    def query(self, question: str, space: str) -> Vector:
        """The vector to search with; an error if the model is no longer the one that filled the index."""
        return self._embed([question], "query", space)[0][0]

    def _embed(self, texts: Sequence[str], input_type: str, space: str | None) -> tuple[list[Vector], str]:
        body = {"model": self.model, "input": list(texts), "input_type": input_type, "expect_space": space}
        while (answer := self.client.post("/v1/inference/embed", json=body)).status_code == 429:
            time.sleep(int(answer.headers["Retry-After"]))
        if answer.is_error:
            raise SystemExit(f"{answer.status_code}: {answer.json()['error']['message']}")
        return [item["embedding"] for item in answer.json()["data"]["data"]], answer.headers["X-Embedding-Space"]


class Index(Protocol):
    """What a vector store has to do."""

    def space(self) -> str | None:
        """The space of its vectors; nothing if it is empty."""

    def fill(self, space: str, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None: ...

    def nearest(self, vector: Vector, limit: int) -> list[tuple[float, Passage]]:
        """The nearest passages, the best first, with their cosine: vectors have length 1, so it is their dot product."""


def run(index: Index) -> None:
    """Fills the index if it is empty, and prints the passages that answer the question on the command line."""
    question = " ".join(sys.argv[1:]) or "What do I do when a bee has stung me?"
    embedder = Embedder()
    space = index.space()
    if space is None:
        passages = corpus()
        vectors, space = embedder.documents([passage.text for passage in passages])
        index.fill(space, passages, vectors)
    for score, passage in index.nearest(embedder.query(question, space), limit=3):
        print(f"{score:.3f}  {passage.text[:160]}")
