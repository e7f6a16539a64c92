"""The hosted guide's examples and the README's own, run as they stand: only base URL, key and model are changed."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import MODEL

HERE = pathlib.Path(__file__).parent
README = HERE.parents[1] / "README.md"
GUIDE_BASE, GUIDE_MODEL, README_BASE = "https://scaigrid.scailabs.ai", "openai/text-embedding-3-small", "http://127.0.0.1:8000"
DIMENSIONS = ["Index 0: 384 dimensions", "Index 1: 384 dimensions"]


def run(language: str, code: str, folder: pathlib.Path, key: str) -> str:
    """Runs a client program and returns what it printed."""
    command, name = {
        "bash": (["bash", "-eu"], "example.sh"),
        "python": ([sys.executable], "example.py"),
        # tsx looks for the kind of module beside the file: .mts says it in the name.
        "typescript": ([os.environ["TSX"]], "example.mts"),
    }[language]
    file = folder / name
    file.write_text(code)
    environment = {**os.environ, "SCAIGRID_API_KEY": key, "VECMILL_KEY": key}
    done = subprocess.run([*command, str(file)], env=environment, capture_output=True, text=True, timeout=120, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def guide(language: str, file: str, folder, server, keys) -> str:
    code = (HERE / "guide" / file).read_text()
    assert GUIDE_BASE in code and GUIDE_MODEL in code
    return run(language, code.replace(GUIDE_BASE, server.base).replace(GUIDE_MODEL, MODEL), folder, keys.key)


def test_guide_curl(tmp_path, server, keys):
    body = json.loads(guide("bash", "curl.sh", tmp_path, server, keys))
    assert body["status"] == "ok" and body["data"]["model"] == MODEL
    assert [(item["index"], len(item["embedding"])) for item in body["data"]["data"]] == [(0, 384), (1, 384)]
    usage = body["data"]["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > 0


def test_guide_python(tmp_path, server, keys):
    lines = guide("python", "python.py", tmp_path, server, keys).splitlines()
    assert lines[:2] == DIMENSIONS
    assert -1 <= float(lines[2]) <= 1
    assert lines[3] == "3"


def test_guide_typescript(tmp_path, server, keys):
    lines = guide("typescript", "typescript.ts", tmp_path, server, keys).splitlines()
    assert lines[:2] == DIMENSIONS
    assert -1 <= float(lines[2]) <= 1


def readme_examples():
    """Every fenced block of the README that talks to the server."""
    blocks = re.findall(r"^```(bash|python|typescript)\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    return [(language, code) for language, code in blocks if README_BASE in code]


def test_the_readme_has_an_example_in_each_language():
    assert {language for language, _ in readme_examples()} == {"bash", "python", "typescript"}


@pytest.mark.parametrize("language,code", readme_examples(), ids=lambda value: value if len(value) < 12 else "")
def test_readme_example(language, code, tmp_path, server, keys):
    printed = run(language, code.replace(README_BASE, server.base), tmp_path, keys.key)
    assert printed.strip(), "an example should show something"
    assert '"status":"error"' not in printed.replace(" ", "")
