"""What we claim beside the peers, each with its figure and whether it held in this run; a claim whose engines are not here is told as such."""

import catalog
import floor

# Race, number type, peers (empty = all of the type), what they are fed, and at least how many times their tokens a second. "B in 32s": batches of 32 as
# they come, which is what a server without a plan for lengths computes; a peer's best setting there may be a text at a time, without padding.
SPEED = {
    "minilm": [
        ("A", "f32", "", "A", 1.4),
        ("A", "bf16", "OpenVINO", "A", 1.4),
        ("A", "int8", "OpenVINO", "A", 1.4),
        ("B", "bf16", "OpenVINO", "B in 32s", 5.0),
        ("B", "bf16", "OpenVINO", "B sorted", 1.3),
        ("A", "int8", "", "A", 1.0),
        *(("B", kind, "", fed, 1.0) for kind in ("f32", "bf16", "int8") for fed in ("B", "B sorted")),
        ("D", "f32", "", "D", 1.3),
        ("D", "bf16", "", "D", 1.3),
        ("D", "int8", "", "D", 1.3),
    ],
    "bert-base": [("A", "f32", "", "A", 1.4), ("A", "bf16", "OpenVINO", "A", 1.1), ("D", "f32", "", "D", 1.3), ("D", "bf16", "", "D", 1.3)],
    **{name: [(race, kind, "", race, 1.3) for kind in ("f32", "bf16", "int8") for race in ("A", "D")] for name in ("modernbert-base", "qwen3-0.6b")},
}
# Number type, race, and at least what share of the processor's most.
FLOOR = {name: [(kind, race, 0.75) for kind in ("f32", "bf16") for race in ("A", "D")] for name in ("modernbert-base", "qwen3-0.6b")}
FED = {"B in 32s": " fed batches of 32 as they come (tried once)", "B sorted": " fed sorted texts"}
# Number type, and least cosine and least share of equal neighbours, on real weights.
NEAR = [("f32", 0.99999, 1.0), ("int8", 0.997, 0.98)]
# The server's processor time over the engine's, by workload.
OVERHEAD = {"http-A": 1.05, "http-B": 1.05, "short": 1.1}


def judge(found: dict, made: dict, middle: dict) -> list[tuple[str, str, bool | None]]:
    """(claim, figure, whether it held or None); `middle` has the median seconds by engine and race."""
    rows = [speed(middle, *claim) for claim in SPEED.get(found["model"], [])]
    rows += [of_floor(found, made, *claim) for claim in FLOOR.get(found["model"], [])]
    rows += short_query(found, middle)
    if found["model"] == "minilm":
        rows += [row for claim in NEAR for row in near(found, *claim)]
    rows += [overhead(row) for row in found["http"] if row["workload"] in OVERHEAD]
    return rows


def rivals(middle: dict, race: str, kind: str, engine: str) -> dict[str, float]:
    """Median seconds of the peers of a number type; of all types if none is named."""
    peers = [entry for entry in catalog.ENTRIES if not entry.is_ours and kind in ("", entry.kind) and engine in entry.engine]
    return {entry.name: middle[entry.name, race] for entry in peers if (entry.name, race) in middle}


def speed(middle: dict, race: str, kind: str, engine: str, fed: str, least: float):
    ours, peers = middle.get((f"Vecmill {kind}", race)), rivals(middle, fed, kind, engine)
    claim = f"{kind}, {race}: at least {least}x {engine or 'the best peer'} in {kind}" + FED.get(fed, "")
    if ours is None or not peers:
        return claim, "not run here", None
    name = min(peers, key=peers.get)
    return claim, f"{peers[name] / ours:.2f}x {name}", peers[name] / ours >= least


def of_floor(found: dict, made: dict, kind: str, race: str, least: float):
    share = floor.share(found, made, f"Vecmill {kind}", kind, race)
    return f"{kind}, {race}: at least {least:.0%} of the floor", "not run here" if share is None else f"{share:.0%}", None if share is None else share >= least


def short_query(found: dict, middle: dict):
    peers = rivals(middle, "C", "", "")
    ours = {name: seconds for (name, race), seconds in middle.items() if race == "C" and name.startswith("Vecmill")}
    if not peers or not ours:
        return []
    peer, own = min(peers, key=peers.get), min(ours, key=ours.get)
    inside = ours[own] / peers[peer]
    rows = [("C: at most 0.7x the best peer's p50, in process", f"{inside:.2f}x {peer} ({own})", inside <= 0.7)]
    over_http = {row["engine"]: row["p50_ms"] / 1e3 for row in found["http"] if row["workload"] == "C"}
    if over_http:
        own = min(over_http, key=over_http.get)
        outside = over_http[own] / peers[peer]
        rows.append(("C: through our HTTP at most the same peer's p50 in process", f"{outside:.2f}x {peer} ({own})", outside <= 1.0))
    return rows


def near(found: dict, kind: str, cosine: float, same: float):
    for row in found["fidelity"]:
        if row["engine"] == f"Vecmill {kind}":
            yield f"{kind}: cosine to torch f32 at least {cosine}", f"{row['min_cosine']:.6f} of {row['texts']} texts", row["min_cosine"] >= cosine
            yield f"{kind}: at least {same:.0%} keep their nearest text", f"{row['same_nearest']:.1%}", row["same_nearest"] >= same


def overhead(row: dict):
    most = OVERHEAD[row["workload"]]
    claim = f"{row['engine']}, {row['workload']}, {row['clients']} clients, {row['per_request']} texts a request: server's CPU at most {most}x the engine's"
    return claim, f"{row['cpu_ratio']:.3f}x", row["cpu_ratio"] <= most
