"""Frameworks that speak OpenAI's API, with their default settings: only base URL, key and model are changed."""

import asyncio
import pathlib

import httpx
import llama_index.core
import pytest
from conftest import ANSWER_S, MODEL, cosine
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

TEXTS = ["Rivers flow into the sea.", "The engine needs oil.", "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. ☕"]


@pytest.fixture(scope="module")
def native(embed):
    return [item["embedding"] for item in embed(TEXTS).json()["data"]["data"]]


def same(vectors, expected):
    return len(vectors) == len(expected) and all(cosine(a, b) > 0.99999 for a, b in zip(vectors, expected, strict=True))


class Sent(httpx.BaseTransport):
    """Passes requests on and keeps what was sent, to know that a test tested what it says."""

    def __init__(self):
        self.bodies, self.inner = [], httpx.HTTPTransport()

    def handle_request(self, request):
        self.bodies.append(request.read())
        return self.inner.handle_request(request)


@pytest.fixture
def vocabulary(monkeypatch):
    """LangChain's tokenizer fetches cl100k_base from the internet, unless its cache has it. LlamaIndex brings such a cache along."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(pathlib.Path(llama_index.core.__file__).parent / "_static" / "tiktoken_cache"))


def test_langchain_with_its_defaults(server, keys, native, vocabulary):
    sent = Sent()
    embeddings = OpenAIEmbeddings(base_url=server.base + "/oai/v1", api_key=keys.key, model=MODEL, http_client=httpx.Client(transport=sent, timeout=ANSWER_S))
    assert same(embeddings.embed_documents(TEXTS), native)
    assert same([embeddings.embed_query(TEXTS[0])], native[:1])
    assert b'"input":[[' in sent.bodies[0].replace(b" ", b""), "the defaults send token ids, else this shows nothing"
    assert same(asyncio.run(embeddings.aembed_documents(TEXTS)), native)


def test_langchain_with_texts(server, keys, native):
    embeddings = OpenAIEmbeddings(base_url=server.base + "/oai/v1", api_key=keys.key, model=MODEL, check_embedding_ctx_length=False)
    assert same(embeddings.embed_documents(TEXTS), native)


def test_langchain_dimensions(server, keys, vocabulary):
    embeddings = OpenAIEmbeddings(base_url=server.base + "/oai/v1", api_key=keys.key, model="cut", dimensions=64)
    assert [len(vector) for vector in embeddings.embed_documents(TEXTS)] == [64, 64, 64]


def test_llama_index_with_its_defaults(server, keys, native):
    embedding = OpenAIEmbedding(model_name=MODEL, api_base=server.base + "/oai/v1", api_key=keys.key, timeout=ANSWER_S)
    assert same(embedding.get_text_embedding_batch(TEXTS), native)
    assert same([embedding.get_query_embedding(TEXTS[0])], native[:1])
    assert same(asyncio.run(embedding.aget_text_embedding_batch(TEXTS)), native)
