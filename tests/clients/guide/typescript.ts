const resp = await fetch("https://scaigrid.scailabs.ai/v1/inference/embed", {
  method: "POST",
  headers: {
    "Authorization": `Bearer ${process.env.SCAIGRID_API_KEY}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({
    model: "openai/text-embedding-3-small",
    input: ["The quick brown fox", "jumps over the lazy dog"],
  }),
});
const { data } = await resp.json();
for (const item of data.data) {
  console.log(`Index ${item.index}: ${item.embedding.length} dimensions`);
}

function cosineSimilarity(a: number[], b: number[]): number {
  let dot = 0, na = 0, nb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    na += a[i] * a[i];
    nb += b[i] * b[i];
  }
  return dot / (Math.sqrt(na) * Math.sqrt(nb));
}

console.log(cosineSimilarity(data.data[0].embedding, data.data[1].embedding));
