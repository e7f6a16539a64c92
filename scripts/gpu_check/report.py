"""All results so far as one page and one file, in the form that benches/runs/ holds."""

import json

from . import command, results


def run(args) -> results.Result:
    told = results.machine()
    found = [args.out / f"{step}.json" for step in command.STEPS if step != "report"]
    steps = [json.loads(path.read_text()) for path in found if path.exists()]
    name = f"gpu-check-{(told['gpu'] or 'cpu').lower().replace(' ', '-')}"
    where = ", ".join(f"{key} {value}" for key, value in told.items() if value)
    lines = [f"# {name}", "", f"Written by scripts/gpu-check; {where}.", ""]
    if any(step["small"] for step in steps):
        lines += ["**A rehearsal with small shapes: the speeds mean nothing.**", ""]
    for step in steps:
        lines += [f"## {step['step']}", "", f"{command.STEPS[step['step']]}; {step['took_s']} s on {step['device']}.", "", results.markdown(step)]
    (args.out / f"{name}.md").write_text("\n".join(lines))
    (args.out / f"{name}.json").write_text(json.dumps({"machine": told, "steps": steps}, indent=1) + "\n")
    result = results.Result(table=[["step", "claims held", "not held", "not run", "seconds"]])
    for step in steps:
        held = [claim["held"] for claim in step["claims"]]
        result.table.append([step["step"], held.count(True), held.count(False), held.count(None), step["took_s"]])
    missing = [path.stem for path in found if not path.exists()]
    result.claim("every step has results", f"missing: {', '.join(missing)}" if missing else "all", not missing)
    print(f"written: {args.out / name}.md and .json")
    return result
