"""The load: clients on kept-alive connections who send the lines of a file, each once and in order. A process of its own, so that its time is its own.

    python clients.py HOST PORT MODEL FILE CLIENTS TEXTS_PER_REQUEST

Prints the seconds from the first request to the last answer, each request's milliseconds, and the processor time of the clients.
"""

import http.client
import json
import pathlib
import sys
import threading
import time


def main():
    host, port, model, path, clients, per_request = sys.argv[1:]
    texts = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    step = int(per_request)
    bodies = [json.dumps({"model": model, "input": texts[start : start + step]}).encode() for start in range(0, len(texts), step)]
    todo, failed, ms = iter(bodies), [], []
    ready = threading.Barrier(int(clients) + 1)

    def client():
        connection = http.client.HTTPConnection(host, int(port), timeout=300)
        connection.connect()
        ready.wait()
        # Advancing an iterator is one step for Python: no text is sent twice.
        for body in todo:
            began = time.perf_counter()
            connection.request("POST", "/v1/inference/embed", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            ms.append((time.perf_counter() - began) * 1e3)
            if answer.status != 200:
                failed.append(answer.status)

    threads = [threading.Thread(target=client) for _ in range(int(clients))]
    for thread in threads:
        thread.start()
    ready.wait()
    began, cpu = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.join()
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu_s": time.process_time() - cpu, "ms": ms, "failed": failed}))


if __name__ == "__main__":
    main()
