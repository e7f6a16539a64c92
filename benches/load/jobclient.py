"""A client of batch jobs for the load tests: makes lines, submits them, watches, reads results."""

import http.client
import json
import random
import time

from harness import MODEL

WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()
END = ("completed", "failed", "expired", "cancelled")
BOUNDARY = "------------------------vecmilljobs"


def lines(count: int, bad: bool = True, encoding: str = "base64") -> list[dict]:
    """The same lines every time. Of 50, one is bad: an empty text, or a model that there is not."""
    dice, made = random.Random(11), []
    for n in range(count):
        text = " ".join(dice.choices(WORDS, k=dice.randint(4, 40)))
        body = {"model": MODEL, "input": text, "encoding_format": encoding}
        if bad and n % 50 == 7:
            body.update({"input": ""} if n % 100 == 7 else {"model": "no-such-model"})
        name = f"bad-{n}" if bad and n % 50 == 7 else f"line-{n}"
        made.append({"custom_id": name, "method": "POST", "url": "/v1/inference/embed", "body": body})
    return made


class Client:
    def __init__(self, host: str, port: int):
        self.host, self.port = host, port

    def call(self, method: str, path: str, body=None, kind: str = "application/json") -> bytes:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        connection.request(method, path, body, {"content-type": kind} if body else {})
        answer = connection.getresponse()
        data = answer.read()
        assert answer.status < 300, (method, path, answer.status, data[:500])
        return data

    def submit(self, asked: list[dict]) -> str:
        """Uploads the lines and submits a job of them; its id."""
        text = "\n".join(map(json.dumps, asked))
        parts = [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n']
        parts += [f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n{text}\r\n--{BOUNDARY}--\r\n']
        file = json.loads(self.call("POST", "/v1/files", "".join(parts).encode(), f"multipart/form-data; boundary={BOUNDARY}"))
        job = self.call("POST", "/v1/inference/batch", json.dumps({"input_file_url": "scaigrid://file/" + file["id"]}))
        return json.loads(job)["data"]["id"]

    def look(self, job: str) -> dict:
        now = json.loads(self.call("GET", f"/v1/inference/batch/{job}"))["data"]
        return {**now["request_counts"], "ended": now["status"] in END, "status": now["status"]}

    def wait(self, job: str, until) -> int:
        """Polls until `until(counts)`; how many lines were done then."""
        deadline = time.monotonic() + 1800
        while not until(now := self.look(job)):
            assert time.monotonic() < deadline and not (now["ended"] and now["status"] != "completed"), now
            time.sleep(0.1)
        return now["completed"] + now["failed"]

    def stalls(self, job: str) -> int:
        """Waits until nothing has moved for 12 s; how many lines were done."""
        last, since = -1, time.monotonic()
        while time.monotonic() - since < 12:
            now = self.look(job)
            assert not now["ended"], now
            if (done := now["completed"] + now["failed"]) != last:
                last, since = done, time.monotonic()
            time.sleep(0.2)
        return last

    def results(self, job: str, which: str) -> list[dict]:
        return [json.loads(line) for line in self.call("GET", f"/v1/inference/batch/{job}/{which}").splitlines()]

    def embed(self, text: str) -> str:
        body = json.dumps({"model": MODEL, "input": text, "encoding_format": "base64"})
        return json.loads(self.call("POST", "/v1/inference/embed", body))["data"]["data"][0]["embedding"]
