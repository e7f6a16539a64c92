"""A process that holds one peer: obeys one JSON object a line on standard input, and answers each with one line.

`encode` all texts of a workload, or the first ones, as fast as a setting allows, `latency` of its texts one at a time, and `vectors`, written to a file as
little-endian f32. engine.rs answers to the same words for us.
"""

import importlib
import json
import os
import pathlib
import sys
import time
import traceback

from batches import Absent


def obey(engine, workloads, command):
    texts = workloads[command["workload"]]["texts"][: command.get("first")]
    match command["do"]:
        case "encode":
            began = time.perf_counter()
            engine.encode(texts, command["setting"])
            return {"seconds": time.perf_counter() - began}
        case "latency":
            ms = []
            for text in texts:
                began = time.perf_counter()
                engine.encode([text], command["setting"])
                ms.append((time.perf_counter() - began) * 1e3)
            return {"ms": ms}
        case "vectors":
            engine.encode(texts, command["setting"]).astype("<f4").tofile(command["path"])
            return {"written": command["path"]}


def main():
    module, kind, model, work, threads = sys.argv[1:]
    # What libraries print must not stand between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    say = lambda value: print(json.dumps(value), file=answers, flush=True)
    try:
        engine = importlib.import_module(module).Engine(kind, pathlib.Path(model), pathlib.Path(work), int(threads))
        say({"ready": True})
        workloads = json.loads((pathlib.Path(work) / "workloads.json").read_text(encoding="utf-8"))
        for line in sys.stdin:
            say(obey(engine, workloads, json.loads(line)))
    except Absent as error:
        say({"absent": str(error)})
    except Exception as error:  # Whatever keeps a peer from running is its row in the table.
        traceback.print_exc()
        say({"absent": f"{type(error).__name__}: {error}".splitlines()[0][:200]})


if __name__ == "__main__":
    main()
