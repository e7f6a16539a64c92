"""OpenAI's own clients, unmodified: Python (sync and async) and Node. Only base URL, key and model are changed."""

import asyncio
import base64
import json
import os
import pathlib
import shutil
import struct
import subprocess

import openai
import pytest
from conftest import ANSWER_S, MODEL, cosine, norm

HERE = pathlib.Path(__file__).parent
TEXTS = ["Rivers flow into the sea.", "The engine needs oil.", "naïve café ☕ 日本語"]


@pytest.fixture(scope="module", params=["/oai/v1", "/v1"])
def sdk(request, server, keys):
    """The client under both base URLs; `/v1` has the embeddings, its models are the native list."""
    return openai.OpenAI(base_url=server.base + request.param, api_key=keys.key, timeout=ANSWER_S, max_retries=0)


@pytest.fixture(scope="module")
def oai(server, keys):
    return openai.OpenAI(base_url=server.base + "/oai/v1", api_key=keys.key, timeout=ANSWER_S, max_retries=0)


def test_default_base64_and_float_hold_the_same_numbers(sdk):
    # By default the client asks for base64 and decodes it.
    default = sdk.embeddings.create(model=MODEL, input=TEXTS)
    floats = sdk.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    encoded = sdk.embeddings.create(model=MODEL, input=TEXTS, encoding_format="base64")
    assert [item.index for item in default.data] == [0, 1, 2]
    for one, other, text in zip(default.data, floats.data, encoded.data, strict=True):
        assert len(one.embedding) == 384 and abs(norm(one.embedding) - 1) < 1e-5
        assert cosine(one.embedding, other.embedding) > 0.999999
        assert cosine(struct.unpack("<384f", base64.b64decode(text.embedding)), other.embedding) > 0.999999
    assert (default.object, default.model, default.data[0].object) == ("list", MODEL, "embedding")
    assert default.usage.prompt_tokens == default.usage.total_tokens > len(TEXTS)


def test_a_string_is_one_text_and_the_same_as_natively(oai, embed):
    ours = oai.embeddings.create(model=MODEL, input=TEXTS[0], user="someone").data
    native = embed(TEXTS[0]).json()["data"]["data"]
    assert len(ours) == 1 and cosine(ours[0].embedding, native[0]["embedding"]) > 0.999999


def test_dimensions(oai):
    full = oai.embeddings.create(model="cut", input="hello world").data[0].embedding
    cut = oai.embeddings.create(model="cut", input="hello world", dimensions=64).data[0].embedding
    assert len(cut) == 64 and abs(norm(cut) - 1) < 1e-5 and cosine(cut, full[:64]) > 0.999999
    assert len(oai.embeddings.create(model=MODEL, input="hello world", dimensions=384).data[0].embedding) == 384
    for dimensions in [64, 0, 385]:
        with pytest.raises(openai.BadRequestError) as caught:
            oai.embeddings.create(model=MODEL, input="x", dimensions=dimensions)
        assert caught.value.param == "dimensions"


def test_extra_fields_of_this_server(oai):
    answer = oai.embeddings.create(model=MODEL, input=["word " * 400, "a"], extra_body={"truncate": "end", "input_type": "query"})
    assert answer.data[0].model_extra == {"truncated": True, "original_tokens": 402}
    assert not answer.data[1].model_extra
    assert len(oai.embeddings.create(model=f"{MODEL}:query", input="a").data) == 1


def test_token_arrays_are_the_text_that_they_stand_for(oai):
    ids = [83, 1609, 5963, 374, 2294, 0]  # cl100k_base
    (text,) = oai.embeddings.create(model=MODEL, input="tiktoken is great!").data
    (one,) = oai.embeddings.create(model=MODEL, input=ids).data
    many = oai.embeddings.create(model=MODEL, input=[ids, [9906, 1917]]).data
    assert cosine(text.embedding, one.embedding) > 0.999999 and cosine(text.embedding, many[0].embedding) > 0.999999
    with pytest.raises(openai.BadRequestError) as caught:
        oai.embeddings.create(model=MODEL, input=[100_257])
    assert caught.value.param == "input"


@pytest.mark.parametrize("input", [[], "", ["a", ""], ["a", 3], 7, [["a"]]], ids=str)
def test_bad_input_is_a_bad_request(oai, input):
    with pytest.raises(openai.BadRequestError) as caught:
        oai.embeddings.create(model=MODEL, input=input, encoding_format="float")
    error = caught.value
    assert (error.status_code, error.type, error.param, error.code) == (400, "invalid_request_error", "input", None)
    assert error.request_id.startswith("req_")


def test_each_fault_is_the_clients_own_class_for_it(server, keys, oai):
    with pytest.raises(openai.NotFoundError) as caught:
        oai.embeddings.create(model="nobody/nothing", input="x")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="maximum context length is 256 tokens, however you requested 402 tokens"):
        oai.embeddings.create(model=MODEL, input="word " * 400)
    wrong = openai.OpenAI(base_url=server.base + "/oai/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as caught:
        wrong.embeddings.create(model=MODEL, input="x")
    assert caught.value.code == "invalid_api_key"
    with pytest.raises(openai.NotFoundError):
        oai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}])
    with pytest.raises(openai.APIStatusError) as caught:
        oai.embeddings.create(model=MODEL, input="x" * (33 << 20))
    assert caught.value.status_code == 413 and caught.value.type == "invalid_request_error"


def test_models(oai):
    models = oai.models.list().data
    assert {model.id for model in models} == {MODEL, "cut"}
    assert {(model.object, model.owned_by) for model in models} == {("model", "local")}
    assert oai.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        oai.models.retrieve("nobody/nothing")
    assert caught.value.code == "model_not_found"


def test_many_at_once_with_the_async_client(server, keys):
    async def ask() -> list:
        async with openai.AsyncOpenAI(base_url=server.base + "/oai/v1", api_key=keys.key, timeout=ANSWER_S) as client:
            calls = [client.embeddings.create(model=MODEL, input=[f"text {i}", TEXTS[0]]) for i in range(16)]
            answers = await asyncio.gather(*calls)
            models = [model.id async for model in client.models.list()]
            with pytest.raises(openai.NotFoundError):
                await client.embeddings.create(model="nobody/nothing", input="x")
            return [answers, models]

    answers, models = asyncio.run(ask())
    first = answers[0].data[1].embedding
    assert all(cosine(answer.data[1].embedding, first) > 0.99999 for answer in answers)
    assert MODEL in models


def test_node(server, keys):
    place = pathlib.Path(os.environ["NODE_PLACE"])
    # Modules are looked for from the file's own folder up.
    program = shutil.copy(HERE / "node" / "openai.mts", place / "openai.mts")
    environment = {**os.environ, "BASE_URL": server.base + "/oai/v1", "KEY": keys.key, "MODEL": MODEL}
    done = subprocess.run([os.environ["TSX"], str(program)], env=environment, capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["dimensions"] == {"default": 384, "float": 384, "cut": 64}
    assert said["cosine"] > 0.999999
    assert said["models"] == [MODEL, "cut"] or sorted(said["models"]) == sorted([MODEL, "cut"])
    assert said["retrieved"] == MODEL
    assert said["errors"] == [
        {"class": "BadRequestError", "status": 400, "param": "input", "code": None},
        {"class": "NotFoundError", "status": 404, "param": "model", "code": "model_not_found"},
        {"class": "AuthenticationError", "status": 401, "param": None, "code": "invalid_api_key"},
    ]
