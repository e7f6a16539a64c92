"""Every small checkpoint against the vectors of its reference, by `vecmill verify`, in each number type."""

import concurrent.futures
import json
import os
import pathlib
import subprocess

from . import checkpoints, place, results

F32_LEAST = 0.99999
# Random weights amplify rounding, so in half precision no fixed cosine is right for all of these: plain operations on a processor, in the same type,
# come down to 0.990. What a GPU computes may lie twice as far from the reference as they do. Real weights are the step `minilm`.
HALF = ("bf16", "f16")
FARTHER, SLACK = 2.0, 1e-4


def verify(args, model: pathlib.Path, dtype: str, device: str | None = None) -> dict:
    command = [str(place.binary()), "verify", "--model", str(model), "--offline", "--json", "--device", device or args.device, "--dtype", dtype]
    done = subprocess.run([*command, "--threads", "2"], capture_output=True, text=True, timeout=300)
    if not done.stdout.startswith("{"):
        return {"error": done.stderr.strip()[-300:]}
    return json.loads(done.stdout)


def run(args) -> results.Result:
    models = checkpoints.small(args)
    jobs = [(model, dtype, args.device) for dtype in ("f32", *HALF) for model in models]
    # Without a GPU both sides of the comparison are the same.
    jobs += [(model, dtype, "cpu") for dtype in HALF for model in models if args.cuda]
    with concurrent.futures.ThreadPoolExecutor(max(1, min(8, len(os.sched_getaffinity(0)) // 2))) as pool:
        reports = pool.map(lambda job: verify(args, models[job[0]], *job[1:]), jobs)
    by = dict(zip(jobs, reports))
    result = results.Result(figures={" ".join(key): {**report, "lines": []} for key, report in by.items()})
    for name, report in result.figures.items():
        if "error" in report:
            print(f"{name}: {report['error']}")
    tabulate(args, models, by, result)
    judge(args, models, by, result)
    return result


def least(reports: list[dict]) -> float:
    return min(report.get("min_cosine", 0.0) for report in reports)


def tabulate(args, models, by: dict, result: results.Result) -> None:
    """A row per family: the worst of its checkpoints."""
    result.table = [["family", "f32", "max abs error", *(f"{dtype}{where}" for dtype in HALF for where in ("", " on the processor"))]]
    for family in dict.fromkeys(name.split("--")[0] for name in models):
        mine = [name for name in models if name.split("--")[0] == family]
        worst = max(by[name, "f32", args.device].get("max_abs", float("inf")) for name in mine)
        half = [f"{least([by[name, dtype, device] for name in mine]):.6f}" for dtype in HALF for device in (args.device, "cpu")]
        result.table.append([family, f"{least([by[name, 'f32', args.device] for name in mine]):.7f}", f"{worst:.1e}", *half])


def judge(args, models, by: dict, result: results.Result) -> None:
    names = list(models)

    def claim(what: str, missed: list[str], counts: bool = True) -> None:
        figure = f"{len(names) - len(missed)} of {len(names)}" + (f"; missed by {', '.join(missed[:5])}" if missed else "")
        result.claim(what, figure if counts else "needs a GPU", not missed if counts else None)

    broken = [name for name in names if any("error" in by[key] or by[key]["token_mismatches"] for key in by if key[0] == name)]
    claim("computed in f32, bf16 and f16, the same tokens", broken)
    claim(f"f32: cosine at least {F32_LEAST} to the reference", [name for name in names if least([by[name, "f32", args.device]]) < F32_LEAST])
    for dtype in HALF:
        far = [name for name in names if 1 - least([by[name, dtype, args.device]]) > FARTHER * (1 - least([by[name, dtype, "cpu"]])) + SLACK]
        claim(f"{dtype}: at most twice as far from the reference as plain {dtype} on a processor", far, args.cuda)
