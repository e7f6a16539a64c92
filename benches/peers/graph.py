"""The model as a graph that ends in unit vectors: mean pooling included, exported once per model."""

import torch
from transformers import AutoModel

INPUTS = ["input_ids", "attention_mask", "token_type_ids"]


class Encoder(torch.nn.Module):
    """BERT, the mean over a text's tokens, and division by the length."""

    def __init__(self, model, attention):
        super().__init__()
        self.bert = AutoModel.from_pretrained(model, attn_implementation=attention).eval()

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.bert(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).last_hidden_state
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)


def example():
    """Two texts, one of them padded."""
    ids = torch.randint(1000, 2000, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}


def write_onnx(path, model):
    """In f32; attention in single steps, as fusers look for it."""
    axes = {name: {0: "texts", 1: "tokens"} for name in INPUTS} | {"vector": {0: "texts"}}
    names = {"input_names": INPUTS, "output_names": ["vector"], "dynamic_axes": axes}
    with torch.no_grad():
        torch.onnx.export(Encoder(model, "eager"), tuple(example().values()), str(path), opset_version=17, dynamo=False, **names)
