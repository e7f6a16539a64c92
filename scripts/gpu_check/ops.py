"""Every kernel against plain f32 operations on random input: the tests of tests/it/kernels, on the GPU. Without one, thread by thread on the processor."""

import os
import re
import subprocess

from . import place, results


def run(args) -> results.Result:
    # One thread after the other, as the server has one for its device.
    command = [str(place.kernels()), "kernels::", "--show-output", "--test-threads", "1"]
    told = {"VECMILL_TEST_DEVICE": args.device, "CARGO_MANIFEST_DIR": str(place.ROOT)}
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, timeout=470)
    tests = dict(re.findall(r"^test (\S+) \.\.\. (\w+)", done.stdout, re.MULTILINE))
    failures = dict(re.findall(r"^---- (\S+) stdout ----\n(.*?)(?=\n---- |\n(?:failures|successes):)", done.stdout, re.MULTILINE | re.DOTALL))
    failed = {test: failures.get(test, "no word why").strip()[-300:] for test, outcome in tests.items() if outcome != "ok"}
    networks = re.findall(r"^(.*: (?:1 - cosine is|with the kernels) .*)$", done.stdout, re.MULTILINE)
    worst = worst_by_kernel(done.stdout)
    result = results.Result(figures={"exit_code": done.returncode, "tests": tests, "failures": failed, "kernels": worst, "networks": networks})
    result.table = [["kernel", "number format", "comparisons", "off by at most", "allowed"]]
    result.table += [[each["kernel"], each["dtype"], each["comparisons"], f"{each['off']:.1e}", f"{each['allowed']:.1e}"] for each in worst]
    good, where = sum(outcome == "ok" for outcome in tests.values()), "" if args.cuda else ", run thread by thread on the processor"
    figure = f"{good} of {len(tests)} tests" + "".join(f"; {test}: {why}" for test, why in failed.items())
    result.claim(f"every kernel equals plain f32{where}", figure, done.returncode == 0 and good == len(tests) > 0)
    for dtype in ("F32", "BF16", "F16"):
        met = [each["kernel"] for each in worst if each["dtype"] == dtype]
        result.claim(f"kernels compared in {dtype}", ", ".join(met), bool(met))
    if not tests:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return result


def worst_by_kernel(output: str) -> list[dict]:
    """Of each kernel and number format the comparison that came nearest to what is allowed."""
    found: dict[tuple, dict] = {}
    for kernel, dtype, off, allowed in re.findall(r"^kernel (\S+) in (\w+): off by (\S+) of (\S+)$", output, re.MULTILINE):
        each = found.setdefault((kernel, dtype), {"kernel": kernel, "dtype": dtype, "comparisons": 0, "off": 0.0, "allowed": float(allowed)})
        each["comparisons"] += 1
        if float(off) / float(allowed) > each["off"] / each["allowed"]:
            each.update(off=float(off), allowed=float(allowed))
    return list(found.values())
