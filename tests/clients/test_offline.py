"""Without a network: the server in a namespace that has loopback and no route, with --offline, answers as it does elsewhere."""

import json
import os
import subprocess

from conftest import BINARY, MODEL

# Inside the namespace: bring loopback up, make sure there is no route, serve, ask once, end well.
INSIDE = r"""
set -eu
ip link set lo up
test -z "$(ip route show)"
"$VECMILL_BIN" serve --model "$3" $4 --offline --port 0 >"$1/line" 2>"$1/log" &
server=$!
for _ in $(seq 600); do grep -q listening "$1/line" && break; kill -0 $server; sleep 0.1; done
base=$(sed 's/listening on //' "$1/line")
curl -sS -X POST "$base/v1/inference/embed" -d '{"model": "'"$2"'", "input": "alone on an island"}' >"$1/answer"
kill -TERM $server
wait $server
"""


def serve_and_ask(folder, what, *flags):
    """The vector of one text, from a server inside such a namespace."""
    words = [str(folder), MODEL, str(what), " ".join(flags)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", INSIDE, "sh", *words], env=os.environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{done.stderr}\n{(folder / 'log').read_text()}"
    answer = json.loads((folder / "answer").read_text())
    assert answer["status"] == "ok" and len(answer["data"]["data"][0]["embedding"]) == 384
    return answer["data"]["data"][0]["embedding"]


def test_serves_in_a_namespace_without_a_route(tmp_path):
    serve_and_ask(tmp_path, "all-MiniLM-L6-v2")


def test_a_signed_bundle_is_all_that_an_island_needs(tmp_path):
    """Nothing of the model but the bundle: the cache of the island is empty."""
    bundle, key = tmp_path / "minilm.vecmill", tmp_path / "key"
    run = lambda *words: subprocess.run([BINARY, *map(str, words)], check=True, capture_output=True, text=True, timeout=120).stdout.strip()
    trusted = run("bundle", "keygen", "-o", key)
    run("bundle", "all-MiniLM-L6-v2", "-o", bundle, "--sign", key)
    island, home = tmp_path / "island", tmp_path / "home"
    island.mkdir()
    home.mkdir()
    there = serve_and_ask(island, bundle, "--trust", trusted, "--cache-dir", str(island / "cache"))
    assert there == serve_and_ask(home, "all-MiniLM-L6-v2"), "the same vectors as from the cache"
