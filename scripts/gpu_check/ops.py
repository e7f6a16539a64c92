"""Every kernel against plain f32 operations on random input: the tests of tests/it/kernels, on the GPU. Without one, thread by thread on the processor."""

import os
import re
import subprocess
import time

from . import place, results


def run(args) -> results.Result:
    """Each test in a process of its own: a kernel that goes wrong may leave the GPU unusable for the process that called it."""
    listed = ask(args, "kernels::", "--list")
    names = re.findall(r"^(kernels::\S+): test$", listed.stdout, re.MULTILINE)
    tests, failures, output = {}, {}, ""
    for name in names:
        started = time.monotonic()
        try:
            done = ask(args, name, "--exact", "--show-output")
            good, told = done.returncode == 0 and "test result: ok. 1 passed" in done.stdout, done.stdout
        except subprocess.TimeoutExpired:
            good, told = False, "no time was left"
        tests[name] = {"ok": good, "took_s": round(time.monotonic() - started, 1)}
        output += told
        if not good:
            failures[name] = told.partition("stdout ----")[2].strip()[:500] or told[-300:]
    networks = re.findall(r"^(.*: (?:1 - cosine is|with the kernels) .*)$", output, re.MULTILINE)
    worst = worst_by_kernel(output)
    result = results.Result(figures={"tests": tests, "failures": failures, "kernels": worst, "networks": networks})
    result.table = [["kernel", "number format", "comparisons", "off by at most", "allowed"]]
    result.table += [[each["kernel"], each["dtype"], each["comparisons"], f"{each['off']:.1e}", f"{each['allowed']:.1e}"] for each in worst]
    where = "" if args.cuda else ", run thread by thread on the processor"
    missed = "".join(f"; {name}: {why[:100]}" for name, why in failures.items()).replace("\n", " ")
    result.claim(f"every kernel equals plain f32{where}", f"{len(names) - len(failures)} of {len(names)} tests{missed}", not failures and bool(names))
    for dtype in ("F32", "BF16", "F16"):
        met = [each["kernel"] for each in worst if each["dtype"] == dtype]
        result.claim(f"kernels compared in {dtype}", ", ".join(met), bool(met))
    if not names:
        print(listed.stdout[-2000:], listed.stderr[-2000:])
    return result


def ask(args, *words: str) -> subprocess.CompletedProcess:
    """The program of tests, told where it is to compute and where the checkpoints lie."""
    told = {"VECMILL_TEST_DEVICE": args.device, "CARGO_MANIFEST_DIR": str(place.ROOT)}
    left = max(1, args.deadline - 5 - time.monotonic())
    return subprocess.run([str(place.kernels()), *words], env={**os.environ, **told}, capture_output=True, text=True, timeout=left)


def worst_by_kernel(output: str) -> list[dict]:
    """Of each kernel and number format the comparison that came nearest to what is allowed."""
    found: dict[tuple, dict] = {}
    for kernel, dtype, off, allowed in re.findall(r"^kernel (\S+) in (\w+): off by (\S+) of (\S+)$", output, re.MULTILINE):
        each = found.setdefault((kernel, dtype), {"kernel": kernel, "dtype": dtype, "comparisons": 0, "off": 0.0, "allowed": float(allowed)})
        each["comparisons"] += 1
        if float(off) / float(allowed) > each["off"] / each["allowed"]:
            each.update(off=float(off), allowed=float(allowed))
    return list(found.values())
