"""How near each engine's vectors are to torch's in f32, on passages of all lengths, and whether each text keeps its nearest neighbour."""

import catalog
import numpy as np


def measure(engines: dict, texts: int, work) -> list[dict]:
    """Rows of engine, lowest and mean cosine, and the share of texts whose nearest other text is the same one."""
    vectors = {entry.name: encode(entry, engine, work).reshape(texts, -1) for entry, engine in engines.items()}
    if catalog.REFERENCE not in vectors:
        return []
    vectors = {name: own / np.linalg.norm(own, axis=1, keepdims=True) for name, own in vectors.items()}
    reference = vectors[catalog.REFERENCE]
    near = nearest(reference)
    rows = []
    for name, own in vectors.items():
        cosines = (own * reference).sum(axis=1)
        same = float((nearest(own) == near).mean())
        rows.append({"engine": name, "texts": len(own), "min_cosine": float(cosines.min()), "mean_cosine": float(cosines.mean()), "same_nearest": same})
    return rows


def encode(entry, engine, work) -> np.ndarray:
    """All vectors, one after the other; sorted where sorting is to be asked for, which changes no text's vector but by rounding."""
    path = work / "vectors.f32"
    setting = {"batch": 32, "in_flight": 4} if entry.is_ours else {"batch": 8, "sorted": True, "apart": False}
    engine.ask(do="vectors", workload="fidelity", setting=setting, path=path)
    return np.fromfile(path, "<f4").astype(np.float64)


def nearest(vectors: np.ndarray) -> np.ndarray:
    """For each text the other one with the highest cosine."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -1)
    return similarity.argmax(axis=1)
