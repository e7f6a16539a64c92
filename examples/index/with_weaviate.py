"""An index in Weaviate, which gets its vectors from here and computes none itself. `WEAVIATE` is the host; ports are Weaviate's own."""

import os
from collections.abc import Sequence

import weaviate
from embedding import Vector, run
from passages import Passage
from weaviate.classes.config import Configure, DataType, Property, VectorDistances
from weaviate.classes.query import MetadataQuery

COLLECTION = "Passages"


class Weaviate:
    def __init__(self, client: weaviate.WeaviateClient) -> None:
        self.client = client

    def space(self) -> str | None:
        if not self.client.collections.exists(COLLECTION):
            return None
        return self.client.collections.get(COLLECTION).config.get().description

    def fill(self, space: str, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        index = Configure.VectorIndex.hnsw(distance_metric=VectorDistances.DOT)
        properties = [Property(name=name, data_type=DataType.TEXT) for name in ("title", "text")]
        collection = self.client.collections.create(
            COLLECTION, description=space, properties=properties, vector_config=Configure.Vectors.self_provided(vector_index_config=index)
        )
        with collection.batch.fixed_size(batch_size=100) as batch:
            for passage, vector in zip(passages, vectors, strict=True):
                batch.add_object(properties={"title": passage.title, "text": passage.text}, vector=list(vector))
        if collection.batch.failed_objects:
            self.client.collections.delete(COLLECTION)
            raise SystemExit(collection.batch.failed_objects[0].message)

    def nearest(self, vector: Vector, limit: int) -> list[tuple[float, Passage]]:
        found = self.client.collections.get(COLLECTION).query.near_vector(vector, limit=limit, return_metadata=MetadataQuery(distance=True))
        # Its distance is the negative dot product.
        return [(-(o.metadata.distance or 0.0), Passage(str(o.properties["title"]), str(o.properties["text"]))) for o in found.objects]


if __name__ == "__main__":
    with weaviate.connect_to_local(host=os.environ.get("WEAVIATE", "127.0.0.1")) as client:
        run(Weaviate(client))
