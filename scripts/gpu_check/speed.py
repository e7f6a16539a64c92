"""One shape of model: tokens per second and latency of the server, beside the peers on the same weights and texts."""

import json
import os
import time

from . import checkpoints, gpu, place, results, shapes, texts
from .server import Server, cosine

# The claims of a GPU: by how much the server is faster than sentence-transformers.
FASTER = {"equal": 1.3, "skewed": 2.0}
# Shapes that must use half of the measured peak at 512 tokens.
DENSE = ("bert-large", "qwen3-0.6b")
HEAD = ["tokens", "lengths", "server tokens/s", "sentence-transformers", "batch", "plain torch", "batch", "faster than ST", "peak", "GPU idle", "p50 ms", "p99 ms"]


def run(args, name: str) -> results.Result:
    import torch

    os.environ["HF_HUB_OFFLINE"] = "1"
    checkpoints.ensure()
    shape = shapes.SHAPES[name]
    if args.small:
        shape = shapes.dataclasses.replace(shape, layers=2, vocabulary=max(30522, shape.vocabulary // 4))
    folder = place.scratch(args) / name
    shapes.make(shape, folder, torch.bfloat16 if args.cuda else torch.float32, place.MINILM, min(shape.positions, 8192))
    result = results.Result(table=[HEAD])
    # Peers and server have the card to themselves, one after the other.
    cells = [cell(args, name, mean, kind, shape) for mean in means(args, shape) for kind in ("equal", "skewed")]
    peers_first(args, folder, cells, result)
    server_second(args, folder, cells, result)
    peak = peak_tflops(args)
    for each in cells:
        judge(args, name, shape, each, peak, result)
    return result


def means(args, shape) -> list[int]:
    wanted = [50, 128] if args.small else [50, 128, 512, 8192]
    return [mean for mean in wanted if mean <= min(shape.positions, 8192)]


def cell(args, name: str, mean: int, kind: str, shape) -> dict:
    """Texts for one row of the table."""
    count = 64 if args.small else max(64, min(8192, 2_000_000 // mean))
    sizes = texts.lengths(kind, mean, min(shape.positions, 8192), count)
    return {"mean": mean, "kind": kind, "sizes": sizes, "texts": texts.made(sizes, seed=mean), "name": name}


def peers_first(args, folder, cells: list[dict], result: results.Result) -> None:
    import torch

    from .peers import Peers

    peers = Peers(args, folder)
    for each in cells:
        seconds = args.seconds if time.monotonic() < args.deadline - 240 else 1
        each["st"] = peers.sentence_transformers(each["texts"], each["sizes"], seconds)
        each["torch"] = peers.plain(each["sizes"], seconds)
    # A few short texts: what is compared is the network, not how far rounding goes on.
    result.figures["sample"] = cells[0]["texts"][:8]
    result.figures["exact"] = peers.exact(result.figures["sample"])
    del peers
    if args.cuda:
        torch.cuda.empty_cache()


def server_second(args, folder, cells: list[dict], result: results.Result) -> None:
    dtype = "bf16" if args.cuda else "f32"
    flags = ["--model", f"m={folder}", "--dtype", dtype, "--max-queue-tokens", "4000000", "--log-level", "warn"]
    with Server(args, f"speed-{cells[0]['name']}", *flags) as server:
        vectors = server.embed("m", result.figures.pop("sample"))
        least = min(map(cosine, vectors, result.figures.pop("exact")))
        wanted = 0.999 if args.cuda else 0.99999
        result.claim(f"the same vectors as sentence-transformers in f32 (random weights, {dtype}): cosine at least {wanted}", f"{least:.7f}", least >= wanted)
        for each in cells:
            file = args.out / "texts.txt"
            file.write_text("\n".join(each["texts"]) + "\n")
            per_request = max(1, min(512, (256 if args.small else 16384) // each["mean"]))
            load = ["--texts", str(file), "--concurrency", "2" if args.small else "16"]
            with gpu.Watch(args) as watch:
                each["server"] = server.bench("m", *load, "--texts-per-request", str(per_request), seconds=args.seconds)
            if not each["server"]["tokens_per_s"]:
                raise RuntimeError(f"{each['mean']} tokens, {each['kind']}: the server finished no request in {args.seconds} s")
            each["idle"] = watch.idle_share()
            each["alone"] = server.bench("m", "--texts", str(file), "--concurrency", "1", seconds=min(2, args.seconds), warmup=0.2)


def peak_tflops(args) -> float | None:
    """What `info` measured on this machine."""
    path = args.out / "info.json"
    return json.loads(path.read_text())["figures"].get("bf16_tflops") if args.cuda and path.exists() else None


def judge(args, name: str, shape, each: dict, peak: float | None, result: results.Result) -> None:
    rate, (st, st_batch), (plain, plain_batch) = each["server"]["tokens_per_s"], each["st"], each["torch"]
    flops_per_token = shape.flops(each["sizes"]) / sum(each["sizes"])
    share = rate * flops_per_token / 1e12 / peak if peak else None
    faster, latency = rate / st if st else None, each["alone"]["latency_ms"]["accepted"]
    percent = lambda part: "not run" if part is None else f"{part:.0%}"  # noqa: E731
    cells = [f"{rate:.0f}", f"{st:.0f}", st_batch, f"{plain:.0f}", plain_batch, f"{faster:.2f}x" if faster else "-", percent(share), percent(each["idle"])]
    result.table.append([each["mean"], each["kind"], *cells, latency["p50"], latency["p99"]])
    keep = ("mean", "kind", "st", "torch", "server", "alone", "idle")
    figures = {**{key: each[key] for key in keep}, "peak_share": share, "flops_per_token": flops_per_token, "faster": faster}
    result.figures.setdefault("rows", []).append(figures)
    row = f"{each['mean']} tokens, {each['kind']}"
    wanted = FASTER[each["kind"]]
    figure = f"{faster:.2f}x" if faster else "sentence-transformers ran out of memory"
    result.claim(f"{row}: at least {wanted}x sentence-transformers", figure, (faster is None or faster >= wanted) if args.cuda else None)
    if name in DENSE and each["mean"] == 512:
        result.claim(f"{row}: at least 50 % of the measured peak", percent(share), None if share is None else share >= 0.5)
    if each["mean"] == 50:
        result.claim(f"{row}: the GPU idles less than 10 % of the time", percent(each["idle"]), None if each["idle"] is None else each["idle"] < 0.1)
