"""Without a network: the server in a namespace that has loopback and no route, with --offline, answers as it does elsewhere."""

import json
import os
import subprocess

from conftest import MODEL

# Inside the namespace: bring loopback up, make sure there is no route, serve, ask once, end well.
INSIDE = r"""
set -eu
ip link set lo up
test -z "$(ip route show)"
"$VECMILL_BIN" serve --model all-MiniLM-L6-v2 --offline --port 0 >"$1/line" 2>"$1/log" &
server=$!
for _ in $(seq 600); do grep -q listening "$1/line" && break; kill -0 $server; sleep 0.1; done
base=$(sed 's/listening on //' "$1/line")
curl -sS -X POST "$base/v1/inference/embed" -d '{"model": "'"$2"'", "input": "alone on an island"}' >"$1/answer"
kill -TERM $server
wait $server
"""


def test_serves_in_a_namespace_without_a_route(tmp_path):
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", INSIDE, "sh", str(tmp_path), MODEL], env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stderr}\n{(tmp_path / 'log').read_text()}"
    answer = json.loads((tmp_path / "answer").read_text())
    assert answer["status"] == "ok" and len(answer["data"]["data"][0]["embedding"]) == 384
