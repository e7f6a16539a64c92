"""Who takes part, in which number types, and at which settings each is tried."""

import dataclasses

BATCHES = (1, 4, 8, 16, 32)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One row: an engine in one number type."""

    engine: str
    kind: str
    # What pip calls it, and the module that runs it; both empty for us.
    package: str = ""
    module: str = ""

    @property
    def name(self) -> str:
        return f"{self.engine} {self.kind}"

    @property
    def is_ours(self) -> bool:
        return not self.module


ENTRIES = [
    *(Entry("Vecmill", kind) for kind in ("f32", "bf16", "int8")),
    *(Entry("sentence-transformers", kind, "sentence-transformers", "torch_peer") for kind in ("f32", "bf16")),
    *(Entry("ONNX Runtime", kind, "onnxruntime", "onnx_peer") for kind in ("f32", "int8")),
    *(Entry("OpenVINO", kind, "openvino", "openvino_peer") for kind in ("f32", "bf16", "int8")),
    *(Entry("CTranslate2", kind, "ctranslate2", "ct2_peer") for kind in ("f32", "bf16", "int8")),
]
# The row that fidelity is measured against.
REFERENCE = "sentence-transformers f32"

# Ours: texts in a request, and requests under way at once.
OURS = [{"batch": 1, "in_flight": 64}, {"batch": 8, "in_flight": 8}, {"batch": 32, "in_flight": 4}, {"batch": 1024, "in_flight": 1}]


def settings(entry: Entry, workload: str, texts: int, is_large: bool) -> list[list[dict]]:
    """What an engine is tried at: ladders of settings that differ in the texts of a batch, of which there are no more than texts. Only B has an order to try.

    Of a large model no batches run apart: for that most engines would hold its weights once more.
    """
    if entry.is_ours:
        return [[{"batch": 1, "in_flight": 1}]] if workload == "C" else [[setting] for setting in OURS if setting["batch"] <= texts or setting is OURS[-1]]
    batches = [batch for batch in {"C": (1,), "D": (1, 2, 4, 8)}.get(workload, BATCHES) if batch <= texts]
    # sentence-transformers runs one batch at a time.
    ways = (False,) if entry.module == "torch_peer" or is_large else (False, True)
    orders = (False, True) if workload == "B" else (False,)
    ladders = [[{"batch": batch, "sorted": order, "apart": apart} for batch in batches] for order in orders for apart in ways]
    # As texts come in large batches, hopeless or not: what padding costs.
    return ladders + ([[ladders[0][-1]]] if workload == "B" else [])


def told(setting: dict) -> str:
    """A setting in words."""
    if setting["batch"] == 1 and setting.get("in_flight") == 1:
        return "one text at a time"
    if "in_flight" in setting:
        whole = "all texts in one request" if setting["in_flight"] == 1 else f"{setting['in_flight']} requests of {setting['batch']} at a time"
        return whole.replace("requests of 1 at", "single texts at")
    return f"batch {setting['batch']}" + (", sorted" if setting["sorted"] else "") + (", a thread each" if setting["apart"] else "")
