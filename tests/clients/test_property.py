"""A client generated from the OpenAPI document: thousands of requests that nobody thought of, good and bad, and every answer held to the document."""

import os
import pathlib
import re
import subprocess
import sys

import httpx
from conftest import ANSWER_S

# Whether a good request is accepted depends on more than its form: on the model's sizes, lengths and prompts, and on cursors given out before.
DEPENDS_ON_THE_MODEL = "positive_data_acceptance"


def test_no_request_breaks_the_server_or_the_document(server, keys, tmp_path):
    document = server.base + "/openapi.json"
    options = ["--checks", "all", "--exclude-checks", DEPENDS_ON_THE_MODEL, "--phases", "examples,coverage,fuzzing", "--max-examples", "40"]
    options += ["--seed", "1", "--generation-deterministic", "--suppress-health-check", "all", "--no-color"]
    schemathesis = pathlib.Path(sys.executable).with_name("schemathesis")
    command = [schemathesis, "run", document, *options, "--header", f"Authorization: Bearer {keys.key}"]
    done = subprocess.run(command, env=os.environ, cwd=tmp_path, capture_output=True, text=True, timeout=3 * ANSWER_S)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    operations = sum(len(item) for item in httpx.get(document).json()["paths"].values())
    assert f"Tested: {operations}\n" in done.stdout, "every operation of the document was asked"
    assert int(re.search(r"(\d+) generated", done.stdout)[1]) > 300, done.stdout[-2000:]
    assert httpx.get(server.base + "/health/ready").status_code == 200
    metrics = httpx.get(server.base + "/metrics").text
    assert not re.search(r'^scaigrid_requests_total\{[^}]*status="5', metrics, re.MULTILINE), "not one 5xx since the start"
