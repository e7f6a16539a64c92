"""An index in Qdrant. `QDRANT` is the address of a server, or a folder: then the client keeps the index itself, which does for some ten thousand passages."""

import os
from collections.abc import Sequence

from embedding import Vector, run
from passages import Passage
from qdrant_client import QdrantClient, models

COLLECTION = "passages"


class Qdrant:
    def __init__(self, client: QdrantClient) -> None:
        self.client = client

    def space(self) -> str | None:
        if not self.client.collection_exists(COLLECTION):
            return None
        points, _ = self.client.scroll(COLLECTION, limit=1)
        return points[0].payload["space"] if points and points[0].payload else None

    def fill(self, space: str, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        # DOT leaves vectors as they are; COSINE would scale them once more.
        params = models.VectorParams(size=len(vectors[0]), distance=models.Distance.DOT)
        self.client.create_collection(COLLECTION, vectors_config=params)
        payloads = [{"title": p.title, "text": p.text, "space": space} for p in passages]
        self.client.upload_collection(COLLECTION, vectors=list(vectors), payload=payloads, ids=range(len(passages)), wait=True)

    def nearest(self, vector: Vector, limit: int) -> list[tuple[float, Passage]]:
        points = self.client.query_points(COLLECTION, query=vector, limit=limit).points
        return [(p.score, Passage(p.payload["title"], p.payload["text"])) for p in points if p.payload]


def connect(place: str) -> QdrantClient:
    return QdrantClient(url=place) if place.startswith("http") else QdrantClient(path=place)


if __name__ == "__main__":
    client = connect(os.environ.get("QDRANT", "./qdrant"))
    run(Qdrant(client))
    client.close()
