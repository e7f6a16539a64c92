"""The end of a server: what is running is finished, what comes is sent away, and the exit code says that all went well."""

import re
import threading
import time

import httpx
from conftest import ANSWER_S, MODEL, Server


def wait_until(condition, seconds: float = 60) -> None:
    """Asks again until it is so; a condition that never holds fails the test."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.01)


def in_flight(base: str) -> float:
    samples = re.findall(r"^scaigrid_backend_inflight_requests\S* (\S+)$", httpx.get(base + "/metrics").text, re.MULTILINE)
    return sum(map(float, samples))


def test_sigterm_finishes_what_runs_and_exits_0(tmp_path):
    server = Server(tmp_path, "--model", "all-MiniLM-L6-v2")
    # Seconds of work: enough to be in the middle of, far from the deadline.
    url, texts = server.base + "/v1/inference/embed", [f"text {i} " + "word " * 60 for i in range(300)]
    answers = []
    long = threading.Thread(target=lambda: answers.append(httpx.post(url, json={"model": MODEL, "input": texts}, timeout=ANSWER_S)))
    # Opened before the end comes, as a client's kept-alive connection is.
    with httpx.Client() as client:
        client.get(server.base + "/health")
        long.start()
        wait_until(lambda: in_flight(server.base) >= 1)
        server.terminate()
        wait_until(lambda: client.get(server.base + "/health/ready").status_code == 503)
        late = client.post(url, json={"model": MODEL, "input": "late"})
    assert late.status_code == 503 and late.json()["error"]["code"] == "MODEL_UNAVAILABLE"
    assert int(late.headers["retry-after"]) >= 1
    assert server.wait() == 0
    long.join()
    assert [answer.status_code for answer in answers] == [200], answers[0].text
    assert len(answers[0].json()["data"]["data"]) == len(texts)
