import httpx, os

resp = httpx.post(
    "https://scaigrid.scailabs.ai/v1/inference/embed",
    headers={"Authorization": f"Bearer {os.environ['SCAIGRID_API_KEY']}"},
    json={
        "model": "openai/text-embedding-3-small",
        "input": ["The quick brown fox", "jumps over the lazy dog"],
    },
)
data = resp.json()["data"]
for item in data["data"]:
    print(f"Index {item['index']}: {len(item['embedding'])} dimensions")

import numpy as np

def cosine_similarity(a, b):
    a = np.array(a)
    b = np.array(b)
    return float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)))

emb_a = data["data"][0]["embedding"]
emb_b = data["data"][1]["embedding"]
print(cosine_similarity(emb_a, emb_b))  # -1.0 (opposite) to 1.0 (identical)

API_KEY = os.environ["SCAIGRID_API_KEY"]

# Bulk embed a document
chunks = ["First paragraph...", "Second paragraph...", "Third paragraph..."]

resp = httpx.post(
    "https://scaigrid.scailabs.ai/v1/inference/embed",
    headers={"Authorization": f"Bearer {API_KEY}"},
    json={"model": "openai/text-embedding-3-small", "input": chunks},
).json()["data"]

vectors = [item["embedding"] for item in resp["data"]]
# Insert into your vector store with the corresponding chunks
print(len(vectors))
