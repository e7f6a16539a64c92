"""What a client of the hosted service relies on, checked with the HTTP clients such programs use."""

import base64
import socket
import struct
import urllib.parse

import httpx
import pytest
import requests
from conftest import MODEL, cosine, norm


def vectors(response) -> list[list[float]]:
    assert response.status_code == 200, response.text
    return [item["embedding"] for item in response.json()["data"]["data"]]


def error(response, status: int, code: str) -> dict:
    """The error of a response that must be the error envelope, whole."""
    assert response.status_code == status, response.text
    body = response.json()
    assert body["status"] == "error" and body["error"]["code"] == code, body
    assert body["error"]["message"]
    assert body["meta"]["request_id"].startswith("req_")
    assert response.headers["x-request-id"] == body["meta"]["request_id"]
    return body["error"]


def test_a_string_is_one_text(embed):
    assert len(vectors(embed("one text"))) == 1


def test_vectors_have_unit_length_and_tell_texts_apart(embed):
    king, queen, bread = vectors(embed(["The king spoke.", "The queen spoke.", "Bake the bread for an hour."]))
    assert all(abs(norm(v) - 1) < 1e-5 for v in (king, queen, bread))
    assert cosine(king, queen) > cosine(king, bread) + 0.2


def test_native_dimensions_are_accepted(embed):
    assert len(vectors(embed("hello world", dimensions=384))[0]) == 384


def test_matryoshka_dimensions_cut_and_scale(embed):
    (full,) = vectors(embed("hello world", model="cut"))
    (cut,) = vectors(embed("hello world", model="cut", dimensions=64))
    assert len(cut) == 64 and abs(norm(cut) - 1) < 1e-5
    assert cosine(cut, full[:64]) > 0.999999


@pytest.mark.parametrize("dimensions", [0, -1, 385, 64, 512.5, "abc", True])
def test_other_dimensions_are_refused(embed, dimensions):
    assert [d["field"] for d in error(embed("x", dimensions=dimensions), 422, "VALIDATION_ERROR")["details"]] == ["dimensions"]


@pytest.mark.parametrize(
    "headers,code",
    [
        ({}, "AUTH_TOKEN_MISSING"),
        ({"Authorization": "sgk_x"}, "AUTH_TOKEN_INVALID"),
        ({"Authorization": "Bearer sgk_" + "x" * 40}, "AUTH_TOKEN_INVALID"),
        ({"Authorization": "Basic c2drOng="}, "AUTH_TOKEN_INVALID"),
    ],
)
def test_a_key_is_needed(server, headers, code):
    for path in ["/v1/inference/embed", "/v1/models"]:
        method = "POST" if path.endswith("embed") else "GET"
        error(httpx.request(method, server.base + path, headers=headers), 401, code)


def test_health_and_metrics_need_no_key(server):
    assert httpx.get(server.base + "/health").json() == {"status": "ok"}
    assert httpx.get(server.base + "/health/ready").json()["status"] == "ready"
    metrics = httpx.get(server.base + "/metrics")
    assert metrics.status_code == 200 and "scaigrid_requests_total" in metrics.text


def test_an_unknown_model_is_named(embed):
    assert "nobody/nothing" in error(embed("x", model="nobody/nothing"), 404, "MODEL_NOT_FOUND")["message"]


@pytest.mark.parametrize(
    "body,field",
    [
        ({"model": MODEL, "input": []}, "input"),
        ({"model": MODEL, "input": ""}, "input"),
        ({"model": MODEL, "input": ["a", ""]}, "input.1"),
        ({"model": MODEL, "input": ["a", 3]}, "input.1"),
        ({"model": MODEL, "input": 7}, "input"),
        ({"model": MODEL}, "input"),
        ({"input": "a"}, "model"),
        ({"model": 7, "input": "a"}, "model"),
    ],
)
def test_a_bad_field_is_named(client, body, field):
    details = error(client.post("/v1/inference/embed", json=body), 422, "VALIDATION_ERROR")["details"]
    assert [detail["field"] for detail in details] == [field]


def test_all_bad_fields_are_named_at_once(client):
    response = client.post("/v1/inference/embed", json={"input": [], "dimensions": "x"})
    assert {d["field"] for d in error(response, 422, "VALIDATION_ERROR")["details"]} == {"model", "input", "dimensions"}


def test_a_thousand_texts_come_back_in_order(embed):
    texts = [f"Text number {i} is about {['rivers', 'engines', 'winter'][i % 3]}." for i in range(1000)]
    response = embed(texts)
    many = vectors(response)
    assert [item["index"] for item in response.json()["data"]["data"]] == list(range(1000))
    for i in range(0, 1000, 97):
        (alone,) = vectors(embed(texts[i]))
        assert cosine(alone, many[i]) > 0.99999, i


def test_base64_holds_the_same_numbers(embed):
    (floats,) = vectors(embed("same"))
    (text,) = vectors(embed("same", encoding_format="base64"))
    # Two requests may be computed in different batches, so equal up to float noise.
    assert cosine(struct.unpack("<384f", base64.b64decode(text)), floats) > 0.999999


def test_too_long_is_refused_or_cut_on_request(embed):
    long = "word " * 400
    assert error(embed(["a", long]), 422, "VALIDATION_ERROR")["details"][0]["field"] == "input.1"
    item, other = embed([long, "a"], truncate="end").json()["data"]["data"]
    assert item["truncated"] is True and item["original_tokens"] == 402
    assert "truncated" not in other and "original_tokens" not in other


def test_unknown_routes_and_methods_answer_in_json(client):
    error(client.get("/v1/nowhere"), 404, "NOT_FOUND")
    response = client.get("/v1/inference/embed")
    error(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"model": "\xff"}'])
def test_a_body_that_is_no_request_answers_in_json(client, body):
    details = error(client.post("/v1/inference/embed", content=body), 422, "VALIDATION_ERROR")["details"]
    assert details[0]["field"] == "body"


def test_the_content_type_does_not_matter(client):
    body = f'{{"model": "{MODEL}", "input": "a"}}'
    assert client.post("/v1/inference/embed", content=body, headers={"Content-Type": "text/plain"}).status_code == 200


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_over_the_limit_is_answered_while_it_is_sent(server, keys, chunked):
    megabyte = b"x" * (1 << 20)
    body = (megabyte for _ in range(40)) if chunked else megabyte * 40
    response = requests.post(server.base + "/v1/inference/embed", data=body, headers={"Authorization": f"Bearer {keys.key}"}, timeout=60)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_models_are_listed(client):
    body = client.get("/v1/models", params={"modality": "embedding"}).json()
    items = {item["slug"]: item for item in body["data"]["items"]}
    assert set(items) == {MODEL, "cut"}
    assert body["pagination"] == {"has_more": False, "next_cursor": None}
    model = items[MODEL]
    assert (model["modality"], model["status"], model["health_status"]) == ("embedding", "active", "healthy")
    assert (model["dimensions"], model["context_window"]) == (384, 256)


@pytest.mark.parametrize("slug", [MODEL, urllib.parse.quote(MODEL, safe="")], ids=["raw", "encoded"])
def test_a_model_is_found_under_both_spellings(server, keys, slug):
    # A socket, since clients may rewrite the path.
    host, port = server.base.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        request = f"GET /v1/models/{slug} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {keys.key}\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert f'"slug":"{MODEL}"'.encode() in answer


def test_an_unknown_model_cannot_be_read(client):
    error(client.get("/v1/models/a%2Fb"), 404, "MODEL_NOT_FOUND")
