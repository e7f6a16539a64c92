"""The share of what the processor can do at the most that an engine reached, counting operations on real tokens alone."""

import statistics

import models


def share(found: dict, made: dict, engine: str, kind: str, race: str) -> float | None:
    """None where the engine did not run the race, or no instruction multiplies its number type."""
    row = next((row for row in found["measured"] if (row["engine"], row["race"]) == (engine, race)), None)
    most = found["peak"].get(kind)
    if not row or not most:
        return None
    return models.flop(found["model"], made[race[0]]["tokens"]) / statistics.median(row["seconds"]) / most["gops"] / 1e9
