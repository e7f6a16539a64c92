"""`vecmill embed`: what it writes, read by the programs that people read such files with; what they write, read by it."""

import csv
import json
import subprocess

import duckdb
import numpy
import pyarrow
import pyarrow.parquet
import pytest
import safetensors
import safetensors.numpy
from conftest import BINARY, MODEL

TEXTS = ["a vector mill", 'Water, "wheels"\nand grain', "été ☃", "one", "the longest of them by some words " * 5]


def mill(*words, code=0):
    """Runs the command; what it said."""
    common = [BINARY, "embed", "--model", "all-MiniLM-L6-v2", "--dtype", "f32"]
    done = subprocess.run([*common, *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def answer(embed):
    """The server's answer to the texts."""
    return embed(TEXTS)


@pytest.fixture(scope="module")
def expected(answer):
    """`[5, 384]`: its vectors."""
    return numpy.array([item["embedding"] for item in answer.json()["data"]["data"]], dtype=numpy.float32)


@pytest.fixture(scope="module")
def space(answer):
    return answer.headers["x-embedding-space"]


def test_numpy_and_safetensors_read_what_it_writes(tmp_path, expected, space):
    source = tmp_path / "in.csv"
    with source.open("w", newline="") as file:
        csv.writer(file).writerows([["id", "text"], *enumerate(TEXTS)])
    mill("--input", source, "--output", tmp_path / "out.npy")
    array = numpy.load(tmp_path / "out.npy", mmap_mode="r")
    assert array.dtype == numpy.float32 and numpy.array_equal(array, expected)
    mill("--input", source, "--output", tmp_path / "out.safetensors")
    tensors = safetensors.numpy.load_file(tmp_path / "out.safetensors")
    assert list(tensors) == ["embeddings"] and numpy.array_equal(tensors["embeddings"], expected)
    with safetensors.safe_open(tmp_path / "out.safetensors", "numpy") as file:
        assert file.metadata() == {"model": MODEL, "space": space}


KINDS = [
    (pyarrow.string(), "snappy"),
    (pyarrow.large_string(), "zstd"),
    (pyarrow.string_view(), "gzip"),
    (pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), "lz4"),
]


@pytest.mark.parametrize(("kind", "compression"), KINDS, ids=lambda value: str(value).split("<")[0])
def test_pyarrow_and_duckdb_read_what_it_makes_of_their_files(tmp_path, expected, space, kind, compression):
    source, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    body = pyarrow.array([*TEXTS, None], pyarrow.string())
    body = body.dictionary_encode() if pyarrow.types.is_dictionary(kind) else body.cast(kind)
    table = pyarrow.table({"key": range(6), "body": body, "tags": [["a"], [], None, ["b", "c"], ["d"], []]})
    pyarrow.parquet.write_table(table, source, compression=compression, row_group_size=2)
    said = mill("--input", source, "--output", out, "--column", "body", code=1)
    assert json.loads(said.splitlines()[0]) == {"index": 5, "error": "null"}

    read = pyarrow.parquet.read_table(out)
    assert read.drop_columns("embedding").equals(table), "the input's columns are as they were"
    assert read.schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 384)
    vectors = read["embedding"].combine_chunks()
    assert vectors.null_count == 1 and not vectors[5].is_valid
    assert numpy.array_equal(numpy.array(vectors.slice(0, 5).to_pylist(), dtype=numpy.float32), expected)
    metadata = pyarrow.parquet.read_metadata(out).metadata
    assert (metadata[b"vecmill.model"], metadata[b"vecmill.space"]) == (MODEL.encode(), space.encode())

    rows = duckdb.sql(f"select key, body, embedding::float[384] as v from '{out}' where embedding is not null order by key").fetchall()
    assert [(key, text) for key, text, _ in rows] == list(enumerate(TEXTS))
    assert numpy.array_equal(numpy.array([vector for _, _, vector in rows], dtype=numpy.float32), expected)


def test_duckdb_writes_what_it_reads(tmp_path, expected):
    source, out = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    duckdb.sql("create table texts (id integer, text varchar)")
    duckdb.executemany("insert into texts values (?, ?)", [[row, text] for row, text in enumerate(TEXTS)])
    duckdb.sql(f"copy (from texts order by id) to '{source}'")
    mill("--input", source, "--output", out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == list(range(5))
    assert numpy.array_equal(numpy.array([line["embedding"] for line in lines], dtype=numpy.float32), expected)
