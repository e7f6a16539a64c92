"""What was found, as Markdown for people, JSON for scripts, and a plot."""

import datetime
import importlib.metadata
import json
import pathlib
import statistics
import subprocess
import sys

import catalog
import claims
import floor
import plot

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benches/load"))
from harness import folder, machine  # noqa: E402

RACES = {"A": "A", "B": "B as they come", "B sorted": "B, peers sort", "D": "D"}
PACKAGES = ["torch", "transformers", "sentence-transformers", "onnxruntime", "openvino", "nncf", "ctranslate2"]
WHAT = """Real tokens a second (medians of alternated repeats, lowest and highest in brackets), tokenising included, every engine at its own best setting; in the
same run, one engine at a time on all cores. A: 124 tokens a text; B: lognormal lengths, 8 to 511, mean 111, to peers as they come and sorted by length, to us always as
they come; C: one query of 14 tokens; D: 512 tokens. Floor: the share of what the processor's best instruction of the number type could do at the most,
counting operations on real tokens alone. Cosine and nearest text: against torch in f32."""


def peak(said) -> dict:
    """The processor's most, by number type."""
    built = json.loads((said.work / "built.json").read_text())
    return json.loads(subprocess.run([built["peers-peak"], str(said.threads)], check=True, stdout=subprocess.PIPE).stdout)


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def write(said, found: dict, made: dict):
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    head = {"name": f"peers, {found['model']}", "date": str(datetime.date.today()), "commit": commit, "machine": machine(), "threads": said.threads}
    head |= {"versions": {package: version(package) for package in PACKAGES}, "quick": said.quick}
    middle = medians(found, made)
    judged = claims.judge(found, made, middle)
    whole = head | found | {"claims": [{"claim": claim, "figure": figure, "held": held} for claim, figure, held in judged]}
    place = folder(said) if not said.quick else said.out or said.work / "quick"
    place.mkdir(parents=True, exist_ok=True)
    name = f"peers-{found['model']}"
    (place / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join([*heading(head, found), engines(found, made, middle), processor(found, made), verdicts(judged), *over_http(found), tries(found)]) + "\n"
    (place / f"{name}.md").write_text(text, encoding="utf-8")
    plot.draw(found, made, place / f"{name}.svg")
    print(text)


def medians(found: dict, made: dict) -> dict[tuple[str, str], float]:
    """Median seconds by engine and race; and of what peers took for B in batches of 32 as the texts come."""
    middle = {(row["engine"], row["race"]): statistics.median(row["seconds"]) for row in found["measured"]}
    for row in found["tried"]:
        setting, key = row["setting"], (row["engine"], "B in 32s")
        if row["workload"] == "B" and setting["batch"] == 32 and setting.get("sorted") is False:
            # As long as all texts would have taken.
            seconds = row["seconds"] / row["tokens"] * sum(made["B"]["tokens"])
            middle[key] = min(seconds, middle.get(key, seconds))
    return middle


def heading(head: dict, found: dict):
    told, level = head["machine"], found["level"]
    yield f"# {head['name']}" + (" (quick: no figures to go by)" if head["quick"] else "")
    yield WHAT
    yield (
        f"{told['cpu']}, {told['cores']} cores, {told['memory_gib']} GiB, kernels of level {level}; {head['threads']} threads; commit {head['commit']}, "
        f"{head['date']}; " + ", ".join(f"{package} {of}" for package, of in head["versions"].items()) + "."
    )
    most = [f"{kind} {one['gops']:.0f} ({one['instruction']})" if one else f"{kind}: no instruction" for kind, one in found["peak"].items()]
    yield "Most that the processor does, in 10^9 operations a second: " + "; ".join(sorted(most)) + "."


def table(names: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [names, ["---"] * len(names), *rows])


def engines(found: dict, made: dict, middle: dict) -> str:
    near = {row["engine"]: row for row in found["fidelity"]}
    races, rows = [race for race in RACES if race[0] in made], []
    for entry in catalog.ENTRIES:
        name = entry.name
        if name in found["absent"]:
            rows.append([name, f"not run: {found['absent'][name]}"] + [""] * (len(races) + 4))
        elif name in found["memory"]:
            cells = [speed(found, made, entry, race) for race in races]
            query = f"{middle[name, 'C'] * 1e3:.2f}"
            own = near.get(name)
            cosines = [f"{own['min_cosine']:.6f}", f"{own['mean_cosine']:.6f}", f"{own['same_nearest']:.1%}"] if own else [""] * 3
            rows.append([f"**{name}**" if entry.is_ours else name, *cells, query, *cosines, f"{found['memory'][name]:.0f}"])
    return table(["engine", *(RACES[race] for race in races), "C p50 ms", "min cosine", "mean cosine", "same nearest", "peak RSS MiB"], rows)


def speed(found: dict, made: dict, entry: catalog.Entry, race: str) -> str:
    """Median, range, and share of the floor."""
    row = next(row for row in found["measured"] if (row["engine"], row["race"]) == (entry.name, race))
    tokens = made[race[0]]["tokens"]
    middle, low, high = (sum(tokens) / seconds for seconds in (statistics.median(row["seconds"]), max(row["seconds"]), min(row["seconds"])))
    share = floor.share(found, made, entry.name, entry.kind, race)
    return f"{middle:,.0f} ({low:,.0f}-{high:,.0f})" + ("" if share is None else f", {share:.0%}")


def processor(found: dict, made: dict) -> str:
    """What other processes on the machine disturb least."""
    races, rows = [race for race in RACES if race[0] in made], []
    for entry in catalog.ENTRIES:
        own = {row["race"]: row for row in found["measured"] if row["engine"] == entry.name}
        if own:
            cells = [f"{statistics.median(own[race]['cpu_s']) / sum(made[race[0]]['tokens']) * 1e6:.0f}" for race in races]
            others = [sum(row.get("others_s", [])) / sum(row["cpu_s"]) for row in own.values() if row.get("others_s")]
            rows.append([f"**{entry.name}**" if entry.is_ours else entry.name, *cells, f"{max(others):.0%}" if others else "not measured"])
    what = "The engines' own, medians; and what other processes of the machine used beside them at the most, as a share of it: above some percent, the speeds above are theirs too."
    return f"## Processor time, microseconds a token\n\n{what}\n\n" + table(["engine", *(RACES[race] for race in races), "others"], rows)


def verdicts(judged: list) -> str:
    word = {True: "yes", False: "**no**", None: "-"}
    return "## Ratios\n\n" + table(["claim", "figure", "held"], [[claim, figure, word[held]] for claim, figure, held in judged])


def over_http(found: dict):
    if not found["http"]:
        return
    what = "Kept-alive connections; the clients run on the same cores, and their own time is counted apart. Alone: our engine in process on the same texts."
    names = ["", "texts", "clients", "texts a request", "tok/s", "alone", "p50 ms", "server CPU us/token", "alone", "ratio", "clients' CPU us/token", "server's peak RSS MiB"]
    rows = []
    for row in found["http"]:
        middle = statistics.median(row["tokens_per_s"])
        speed = f"{middle:,.0f} ({min(row['tokens_per_s']):,.0f}-{max(row['tokens_per_s']):,.0f})"
        alone = [f"{row['engine_tokens_per_s']:,.0f}", f"{row['engine_cpu_us_per_token']:.1f}", f"{row['cpu_ratio']:.3f}"] if "cpu_ratio" in row else [""] * 3
        server, clients = (f"{row[f'{who}_cpu_us_per_token']:.1f}" for who in ("server", "clients"))
        head = [row["engine"], row["workload"], str(row["clients"]), str(row["per_request"]), speed, alone[0]]
        rows.append([*head, f"{row['p50_ms']:.2f}", server, *alone[1:], clients, f"{row['peak_mib']:.0f}"])
    yield f"## Through HTTP\n\n{what}\n\n" + table(names, rows)


def tries(found: dict) -> str:
    """Every setting that was tried."""
    rows = []
    for row in found["tried"]:
        figures = ["", f"{row['seconds'] * 1e3:.2f}"] if row["workload"] == "C" else [f"{row['tokens'] / row['seconds']:,.0f}", ""]
        rows.append([row["engine"], row["workload"], catalog.told(row["setting"]), *figures])
    return "## Settings tried\n\nOnce each, on the first texts, larger batches until one is 1.5 times slower than the best before it; the fastest of an engine is the one measured above.\n\n" + table(["engine", "texts", "setting", "tok/s", "p50 ms"], rows)
