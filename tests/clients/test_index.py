"""The examples of an index, end to end against the real server: cut, embed, store, query, in pgvector, Qdrant and FAISS. Weaviate's server is in no
package registry: of that example only the types are checked, as of all of them."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pgserver
import pytest
from conftest import ANSWER_S, MODEL

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples" / "index"
# A question, and the section whose passage answers it; hardly a word is in both.
QUESTIONS = {
    "What do I do when a bee has stung me?": "Bees",
    "I cannot afford the yearly payment": "Fees",
    "Can I protect my vegetables from a cold night?": "Frost",
    "My kitchen waste stinks": "Compost",
    "How do I get rid of aphids without chemicals?": "Slugs and lice",
    "Who mends a spade with a cracked handle?": "Tools",
}


@pytest.fixture(scope="module")
def examples(server, keys):
    """The examples' modules, against this server."""
    environment = {"VECMILL_URL": server.base, "VECMILL_KEY": keys.key, "VECMILL_MODEL": MODEL}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        for name, value in environment.items():
            patch.setenv(name, value)
        yield environment


def pgvector(place):
    import with_pgvector

    return with_pgvector.PgVector(place)


def qdrant(place):
    import with_qdrant

    return with_qdrant.Qdrant(with_qdrant.connect(place))


def faiss(place):
    import with_faiss

    return with_faiss.Faiss(pathlib.Path(place))


def stored_pgvector(index, count):
    return np.array([row[0].to_numpy() for row in index.connection.execute("SELECT embedding FROM passages ORDER BY id")])


def stored_qdrant(index, count):
    points = index.client.retrieve("passages", ids=list(range(count)), with_vectors=True)
    return np.array([point.vector for point in points], np.float32)


def stored_faiss(index, count):
    import faiss

    return faiss.read_index(str(index.vectors)).reconstruct_n(0, count)


STORES = {"pgvector": (pgvector, stored_pgvector, "DATABASE_URL"), "qdrant": (qdrant, stored_qdrant, "QDRANT"), "faiss": (faiss, stored_faiss, "FAISS")}


@pytest.fixture(params=STORES)
def store(request, examples, tmp_path):
    """How to open the index at a place of its own, how to read its vectors, and what its example is to be told."""
    make, stored, variable = STORES[request.param]
    if request.param != "pgvector":
        yield request.param, make, stored, {variable: str(tmp_path / request.param)}
        return
    # A PostgreSQL with pgvector in it; Debian's has it only in newer releases.
    database = pgserver.get_server(tmp_path / "pg", cleanup_mode="delete")
    yield request.param, make, stored, {variable: database.get_uri()}
    database.cleanup()


def test_the_right_passage_comes_first_and_every_vector_is_as_the_server_sent_it(store, examples, embed):
    name, make, stored, told = store
    from embedding import Embedder
    from passages import corpus

    # The example as it stands, in a process of its own: it fills the index and answers; the second time it only answers.
    question = "What do I do when a bee has stung me?"
    command = [sys.executable, EXAMPLES / f"with_{name}.py", question]
    for _ in range(2):
        printed = subprocess.run(command, env={**os.environ, **told}, check=True, capture_output=True, text=True, timeout=ANSWER_S).stdout.splitlines()
        assert len(printed) == 3 and "Bees: " in printed[0], printed

    index, embedder, passages = make(*told.values()), Embedder(), corpus()
    answer = embed([passage.text for passage in passages], input_type="document")
    assert index.space() == answer.headers["X-Embedding-Space"]
    sent = np.array([item["embedding"] for item in answer.json()["data"]["data"]], np.float32)
    assert np.array_equal(stored(index, len(passages)), sent), "to the bit"
    for question, title in QUESTIONS.items():
        vector = embedder.query(question, index.space())
        found = index.nearest(vector, limit=3)
        assert found[0][1].title == title, (question, found)
        scores = np.sort(sent @ np.array(vector, np.float32))[::-1][:3]
        assert np.allclose([score for score, _ in found], scores, atol=1e-6), "the nearest three, in order"


def test_an_index_of_another_model_is_refused(examples):
    from embedding import Embedder

    with pytest.raises(SystemExit, match="409: The model embeds into space"):
        Embedder().query("a question", "0123456789abcdef")


def test_many_texts_go_in_few_calls_and_in_order(examples, embed):
    from embedding import BATCH, Embedder

    texts = [f"passage {n}" for n in range(BATCH + 1)]
    vectors, space = Embedder().documents(texts)
    assert len(vectors) == len(texts) and vectors[BATCH] == embed(texts[BATCH], input_type="document").json()["data"]["data"][0]["embedding"]
    assert space == embed("a").headers["X-Embedding-Space"]


def test_long_sections_are_cut_with_an_overlap(examples):
    from passages import cut

    words = [f"w{n}" for n in range(100)]
    parts = cut("# Title\n\n## Long\n" + " ".join(words) + "\n\n## Short\nall of it", words=40, overlap=10)
    assert [part.title for part in parts] == ["Long"] * 3 + ["Short"] and parts[-1].text == "Short: all of it"
    assert [part.text.split()[1] for part in parts[:3]] == ["w0", "w30", "w60"] and parts[2].text.endswith("w99")
    assert {word for part in parts[:3] for word in part.text.split()[1:]} == set(words)


def test_all_examples_call_their_clients_with_the_right_types():
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "."]
    done = subprocess.run(command, cwd=EXAMPLES, capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode == 0, done.stdout
