// OpenAI's client for Node, unmodified: what it gets is printed as one JSON object for the test to judge.
import OpenAI from "openai";

const { BASE_URL: baseURL, KEY: apiKey, MODEL: model } = process.env as Record<string, string>;
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

const cosine = (a: number[], b: number[]) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// By default this client asks for base64 and decodes it.
const standard = (await client.embeddings.create({ model, input: ["same", "other"] })).data[0].embedding;
const floats = (await client.embeddings.create({ model, input: "same", encoding_format: "float" })).data[0].embedding;
const cut = (await client.embeddings.create({ model: "cut", input: "same", dimensions: 64 })).data[0].embedding;

const models: string[] = [];
for await (const listed of client.models.list()) models.push(listed.id);

const errors: object[] = [];
const caught = async (call: Promise<unknown>) => {
  try {
    await call;
  } catch (error) {
    if (!(error instanceof OpenAI.APIError)) throw error;
    errors.push({ class: error.constructor.name, status: error.status, param: error.param ?? null, code: error.code ?? null });
  }
};
await caught(client.embeddings.create({ model, input: [] }));
await caught(client.embeddings.create({ model: "nobody/nothing", input: "x" }));
await caught(new OpenAI({ baseURL, apiKey: "sk-wrong", maxRetries: 0 }).models.list());

console.log(
  JSON.stringify({
    dimensions: { default: standard.length, float: floats.length, cut: cut.length },
    cosine: cosine(standard, floats),
    models,
    retrieved: (await client.models.retrieve(model)).id,
    errors,
  }),
);
