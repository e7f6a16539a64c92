"""An index in two files with FAISS: vectors in one, what they stand for in the other. `FAISS` is the folder; no server is needed."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence

import faiss
import numpy as np
from embedding import Vector, run
from passages import Passage


class Faiss:
    def __init__(self, folder: pathlib.Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.vectors, self.about = folder / "vectors.faiss", folder / "passages.json"

    def space(self) -> str | None:
        return json.loads(self.about.read_text())["space"] if self.about.exists() else None

    def fill(self, space: str, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        rows = np.array(vectors, np.float32)
        # Exact, and fast up to a million passages; IndexHNSWFlat goes further.
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        faiss.write_index(index, str(self.vectors))
        # Last: it is what says that the index is there.
        self.about.write_text(json.dumps({"space": space, "passages": [dataclasses.asdict(p) for p in passages]}))

    def nearest(self, vector: Vector, limit: int) -> list[tuple[float, Passage]]:
        passages = [Passage(**p) for p in json.loads(self.about.read_text())["passages"]]
        scores, places = faiss.read_index(str(self.vectors)).search(np.array([vector], np.float32), limit)
        return [(float(score), passages[place]) for score, place in zip(scores[0], places[0], strict=True)]


if __name__ == "__main__":
    run(Faiss(pathlib.Path(os.environ.get("FAISS", "./faiss"))))
