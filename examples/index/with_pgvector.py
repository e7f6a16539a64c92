"""An index in PostgreSQL with the extension pgvector: passages and vectors in one table, beside the rest of your data. `DATABASE_URL` says where."""

import os
from collections.abc import Sequence

import numpy as np
import psycopg
from embedding import Vector, run
from passages import Passage
from pgvector.psycopg import register_vector


class PgVector:
    def __init__(self, url: str) -> None:
        self.connection = psycopg.connect(url, autocommit=True)
        self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(self.connection)
        # One row: what all vectors of the table have in common.
        self.connection.execute("CREATE TABLE IF NOT EXISTS passages_space (space text NOT NULL)")

    def space(self) -> str | None:
        row = self.connection.execute("SELECT space FROM passages_space").fetchone()
        return row[0] if row else None

    def fill(self, space: str, passages: Sequence[Passage], vectors: Sequence[Vector]) -> None:
        # All of it or nothing: an index half filled would answer, and answer badly.
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(f"CREATE TABLE passages (id serial PRIMARY KEY, title text, text text, embedding vector({len(vectors[0])}))")
            rows = [(p.title, p.text, np.array(v, np.float32)) for p, v in zip(passages, vectors, strict=True)]
            cursor.executemany("INSERT INTO passages (title, text, embedding) VALUES (%s, %s, %s)", rows)
            # Worth it from some ten thousand rows on.
            cursor.execute("CREATE INDEX ON passages USING hnsw (embedding vector_ip_ops)")
            cursor.execute("INSERT INTO passages_space VALUES (%s)", (space,))

    def nearest(self, vector: Vector, limit: int) -> list[tuple[float, Passage]]:
        # `<#>` is the negative inner product: an index serves the smallest first.
        select = "SELECT -(embedding <#> %(query)s), title, text FROM passages ORDER BY embedding <#> %(query)s LIMIT %(limit)s"
        rows = self.connection.execute(select, {"query": np.array(vector, np.float32), "limit": limit}).fetchall()
        return [(score, Passage(title, text)) for score, title, text in rows]


if __name__ == "__main__":
    run(PgVector(os.environ.get("DATABASE_URL", "postgresql://127.0.0.1/postgres")))
