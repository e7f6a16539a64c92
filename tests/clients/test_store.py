"""Two servers on one real PostgreSQL: keys, revocation, usage, and a batch job that outlives one of them."""

import base64
import concurrent.futures
import csv
import io
import json
import re
import subprocess
import time

import httpx
import pytest
from conftest import ANSWER_S, BINARY, MODEL, Server

LINES = 1200
DONE = ("completed", "failed", "expired", "cancelled")


def vecmill(*words: str) -> str:
    return subprocess.run([BINARY, *words], check=True, capture_output=True, text=True, timeout=ANSWER_S).stdout.strip()


def as_key(server: Server, key: str) -> httpx.Client:
    return httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {key}"}, timeout=ANSWER_S)


@pytest.fixture(scope="module")
def admin(postgres) -> str:
    scopes = "models:use,models:list,api_keys:manage"
    return vecmill("keys", "create", "--name", "admin", "--scopes", scopes, "--store", postgres)


@pytest.fixture(scope="module")
def pair(postgres, admin, tmp_path_factory):
    """Two servers that share the store."""
    pair = [Server(tmp_path_factory.mktemp(name), "--model", "all-MiniLM-L6-v2", "--store", postgres) for name in ("one", "two")]
    yield pair
    for server in pair:
        server.process.kill()
        server.process.wait()


def test_a_key_is_made_on_one_server_and_refused_on_the_other_within_a_second_of_its_end(pair, admin):
    with as_key(pair[0], admin) as one, as_key(pair[1], admin) as two:
        made = one.post("/v1/api-keys", json={"name": "reports", "scopes": ["models:list"]}).json()["data"]
        with as_key(pair[1], made["key"]) as client:
            deadline = time.monotonic() + 1
            while client.get("/v1/models").status_code != 200:
                assert time.monotonic() < deadline, "a second after it was made"
            assert any(item["id"] == made["id"] for item in two.get("/v1/api-keys").json()["data"]["items"])
            assert one.delete(f"/v1/api-keys/{made['id']}").status_code == 200
            deadline = time.monotonic() + 1
            while client.get("/v1/models").status_code != 401:
                assert time.monotonic() < deadline, "a second after it was revoked"


def test_two_servers_count_one_limit_together(pair, admin):
    with as_key(pair[0], admin) as one:
        key = one.post("/v1/api-keys", json={"name": "limited", "requests_per_minute": 50}).json()["data"]["key"]
    with as_key(pair[1], key) as client:
        # Known to the other server too; this request counts.
        deadline = time.monotonic() + 1
        while client.get("/v1/models").status_code != 200:
            assert time.monotonic() < deadline

    def ask(n: int) -> int:
        with as_key(pair[n % 2], key) as client:
            return client.get("/v1/models").status_code

    with concurrent.futures.ThreadPoolExecutor(64) as clients:
        statuses = list(clients.map(ask, range(128)))
    assert (statuses.count(200), statuses.count(429)) == (49, 79), statuses


def test_two_servers_share_a_job_and_one_of_them_is_killed(pair, postgres, admin):
    one, two = pair
    lines = [
        {"custom_id": str(n), "method": "POST", "url": "/v1/inference/embed", "body": {"model": MODEL, "input": f"text {n} and a few more words" if n % 50 else ""}}
        for n in range(LINES)
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    with as_key(one, admin) as client:
        job = client.post("/v1/inference/batch", json={"input_file_base64": base64.b64encode(text).decode()}).json()["data"]

        def look():
            return client.get(f"/v1/inference/batch/{job['id']}").json()["data"]

        def tokens(server) -> float:
            return sum(map(float, re.findall(r"^scaigrid_tokens_total\S* (\S+)$", httpx.get(server.base + "/metrics").text, re.MULTILINE)))

        deadline = time.monotonic() + 300
        while not (tokens(one) and tokens(two) and look()["request_counts"]["completed"] > LINES // 10):
            assert time.monotonic() < deadline, f"both work on it: {tokens(one)} {tokens(two)} {look()}"
            time.sleep(0.02)
        two.process.kill()
        half = look()
        assert half["status"] == "in_progress", half
        while (end := look())["status"] not in DONE:
            assert time.monotonic() < deadline, end
            time.sleep(0.1)
        good, bad = [n for n in range(LINES) if n % 50], [n for n in range(LINES) if not n % 50]
        assert end["status"] == "completed" and end["request_counts"] == {"total": LINES, "completed": len(good), "failed": len(bad)}, end
        for url, expected in [(end["output_file_url"], good), (end["error_file_url"], bad)]:
            # As a client fetches a pre-signed link: without a header.
            found = [int(json.loads(line)["custom_id"]) for line in httpx.get(url, timeout=ANSWER_S).text.splitlines()]
            assert found == expected, "every line once and in order"
        rows = list(csv.DictReader(io.StringIO(vecmill("usage", "--csv", "--store", postgres))))
        assert sum(int(row["requests"]) for row in rows) == len(good)
        assert sum(int(row["tokens"]) for row in rows) == end["usage"]["total_tokens"]
        actions = [json.loads(line)["action"] for line in vecmill("audit", "--store", postgres).splitlines()]
        assert {"key.create", "key.revoke", "file.create", "job.create"} <= set(actions)
