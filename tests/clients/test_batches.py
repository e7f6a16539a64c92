"""OpenAI's own client, unmodified, through a batch: upload, create, poll, read, list, cancel, delete."""

import json
import time

import openai
import pytest
from conftest import ANSWER_S, MODEL

DONE = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(params=["/oai/v1", "/v1"])
def sdk(request, server, keys):
    return openai.OpenAI(base_url=server.base + request.param, api_key=keys.key, timeout=ANSWER_S, max_retries=0)


def upload(sdk, count: int):
    body = {"model": MODEL, "encoding_format": "float"}
    lines = [{"custom_id": f"id-{n}", "method": "POST", "url": "/v1/embeddings", "body": {**body, "input": f"text {n}" if n % 10 else ""}} for n in range(count)]
    return sdk.files.create(file=("in.jsonl", "\n".join(map(json.dumps, lines)).encode()), purpose="batch")


def ended(sdk, batch):
    deadline = time.monotonic() + ANSWER_S
    while batch.status not in DONE:
        assert time.monotonic() < deadline, batch
        time.sleep(0.1)
        batch = sdk.batches.retrieve(batch.id)
    return batch


def test_a_batch_from_upload_to_content(sdk):
    file = upload(sdk, 40)
    assert (file.object, file.purpose, file.status, file.filename) == ("file", "batch", "processed", "in.jsonl")
    batch = sdk.batches.create(input_file_id=file.id, endpoint="/v1/embeddings", completion_window="24h", metadata={"project": "x"})
    assert batch.object == "batch" and batch.metadata == {"project": "x"}
    batch = ended(sdk, batch)
    counts = batch.request_counts
    assert (batch.status, counts.total, counts.completed, counts.failed) == ("completed", 40, 36, 4)
    lines = [json.loads(line) for line in sdk.files.content(batch.output_file_id).text.splitlines()]
    assert [line["custom_id"] for line in lines] == [f"id-{n}" for n in range(40) if n % 10]
    assert all(len(line["response"]["body"]["data"][0]["embedding"]) == 384 for line in lines)
    errors = [json.loads(line) for line in sdk.files.content(batch.error_file_id).text.splitlines()]
    assert [line["custom_id"] for line in errors] == ["id-0", "id-10", "id-20", "id-30"]
    assert batch.id in [item.id for item in sdk.batches.list(limit=5)]
    assert sdk.files.retrieve(batch.output_file_id).purpose == "batch_output"
    assert file.id in [item.id for item in sdk.files.list(purpose="batch")]
    assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(file.id)


def test_a_batch_is_cancelled(sdk):
    batch = sdk.batches.create(input_file_id=upload(sdk, 3000).id, endpoint="/v1/embeddings", completion_window="24h")
    assert sdk.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    assert ended(sdk, batch).status == "cancelled"
