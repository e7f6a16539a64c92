"""The result as bars: tokens a second for each kind of texts, and the time of a short query."""

import statistics

import catalog
import matplotlib

matplotlib.use("svg")
# The same figures give the same file, and text stays text.
matplotlib.rcParams.update({"svg.hashsalt": "peers", "svg.fonttype": "none", "font.size": 8})
import matplotlib.pyplot as plt  # noqa: E402

PANELS = {"A": "A: 124 tokens", "B": "B: mixed lengths, as they come", "B sorted": "B: peers sort", "D": "D: 512 tokens", "C": "C: one query of 14 tokens"}
COLOURS = {True: "#c4452d", False: "#7d8ca3"}


def draw(found: dict, made: dict, path):
    entries = [entry for entry in catalog.ENTRIES if entry.name in found["memory"]][::-1]
    rows = {(row["engine"], row["race"]): row["seconds"] for row in found["measured"]}
    panels = {race: title for race, title in PANELS.items() if race[0] in made}
    figure, axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 0.6 + 0.28 * len(entries)), sharey=True, layout="constrained")
    for axis, (race, title) in zip(axes, panels.items()):
        tokens = sum(made[race[0]]["tokens"])
        # Milliseconds of a query, else thousands of tokens a second.
        scale = (lambda seconds: seconds * 1e3) if race == "C" else (lambda seconds: tokens / seconds / 1e3)
        for place, entry in enumerate(entries):
            values = sorted(map(scale, rows[entry.name, race]))
            middle = statistics.median(values)
            error = [[middle - values[0]], [values[-1] - middle]]
            axis.barh(place, middle, xerr=error, color=COLOURS[entry.is_ours], error_kw={"linewidth": 0.8})
            axis.text(middle, place, f" {middle:.1f}", va="center", fontsize=6.5)
        axis.set_title(title, fontsize=8)
        axis.set_xlabel("p50, ms (less is better)" if race == "C" else "1,000 tokens a second")
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.18)
    axes[0].set_yticks(range(len(entries)), [entry.name for entry in entries])
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
