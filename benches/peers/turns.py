"""Who is fastest: every setting once, then the best ones in turns."""

import statistics

import catalog
from process import Failed

REPEATS = 5
# Settings are told apart by a part of the texts.
FIRST = 32
# A setting's first run makes what the later ones have.
WARM = 8
HOPELESS = 1.5
# A repeat during which other processes used more than this share of the engine's own time is taken again, this often at the most.
DISTURBED = 0.1
AGAIN = 3
RACES = ("A", "B", "B sorted", "C", "D")


def races(made: dict) -> list[str]:
    """Those whose texts there are."""
    return [race for race in RACES if race[0] in made]


def run(engine, workload: str, setting: dict, **limits) -> dict:
    """Seconds and processor time for all texts; of C, the median seconds of one of its queries."""
    if workload == "C":
        answer = engine.ask(do="latency", workload=workload, setting=setting)
        return answer | {"seconds": statistics.median(answer["ms"]) / 1e3}
    return engine.ask(do="encode", workload=workload, setting=setting, **limits)


def try_settings(engines: dict, made: dict, is_large: bool) -> tuple[list[dict], dict]:
    """Every engine at every setting, once after a warm-up: rows of engine, workload, setting and seconds; and the peers that failed, with the reason."""
    rows, failed = [], {}
    for entry, engine in engines.items():
        try:
            rows += try_engine(entry, engine, made, is_large)
            print(f"tried {entry.name}", flush=True)
        except Failed as failure:
            if entry.is_ours:
                raise
            failed[entry] = str(failure)
    return rows, failed


def try_engine(entry, engine, made: dict, is_large: bool) -> list[dict]:
    rows = []
    for workload in filter(made.get, ("A", "B", "C", "D")):
        for ladder in catalog.settings(entry, workload, len(made[workload]["texts"]), is_large):
            run(engine, workload, ladder[0], first=WARM)
            rows += climb(entry, engine, workload, ladder, made[workload]["tokens"])
    return rows


def climb(entry, engine, workload: str, ladder: list[dict], lengths: list[int]) -> list[dict]:
    """The settings of a ladder, from small batches to large ones, until one is hopeless: texts of unlike lengths only get slower from there on."""
    rows = []
    tokens = sum(lengths if workload == "C" else lengths[:FIRST])
    for setting in ladder:
        answer = run(engine, workload, setting, first=FIRST)
        if answer.get("tokens", tokens) != tokens:
            raise RuntimeError(f"{entry.name} counts {answer['tokens']} tokens in {workload}, not {tokens}")
        rows.append({"engine": entry.name, "workload": workload, "setting": setting, "seconds": answer["seconds"], "tokens": tokens})
        if answer["seconds"] > HOPELESS * min(row["seconds"] for row in rows):
            break
    return rows


def best(tried: list[dict]) -> dict[tuple[str, str], dict]:
    """The fastest setting by engine and race. B is run twice, as the texts come and sorted; we are not told to sort, and run in both."""
    fastest = {}
    for row in tried:
        ours = "in_flight" in row["setting"]
        races = [row["workload"]]
        if row["workload"] == "B":
            races = ["B", "B sorted"] if ours else ["B sorted" if row["setting"]["sorted"] else "B"]
        for race in races:
            key = (row["engine"], race)
            if key not in fastest or row["seconds"] < fastest[key]["seconds"]:
                fastest[key] = row
    return fastest


def measure(engines: dict, made: dict, fastest: dict, repeats: int) -> list[dict]:
    """Rows of engine, race, setting, and what each repeat took; a race's repeats are taken in turns by all engines."""
    rows = {}
    for race in races(made):
        for _ in range(repeats):
            for entry, engine in engines.items():
                setting = fastest[entry.name, race]["setting"]
                row = rows.setdefault((entry.name, race), {"engine": entry.name, "race": race, "setting": setting, "seconds": [], "cpu_s": [], "others_s": []})
                answer = undisturbed(engine, race[0], setting)
                for kept in ("seconds", "cpu_s", "others_s"):
                    row[kept].append(answer[kept])
        print(f"measured {race}", flush=True)
    return list(rows.values())


def undisturbed(engine, workload: str, setting: dict) -> dict:
    """A repeat that had the machine to itself; if there is none, the one that was disturbed least."""
    answers = []
    for _ in range(1 + AGAIN):
        answers.append(run(engine, workload, setting))
        if answers[-1]["others_s"] <= DISTURBED * answers[-1]["cpu_s"]:
            break
    return min(answers, key=lambda answer: answer["others_s"] / answer["cpu_s"])
