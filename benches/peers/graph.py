"""The model as a graph that ends in unit vectors: pooling included, exported once per model."""

import json

import torch
from batches import inputs
from transformers import AutoModel


class Encoder(torch.nn.Module):
    """The network, the mean over a text's tokens or the last of them, and division by the length. Its arguments are `inputs(model)`."""

    def __init__(self, model, attention):
        super().__init__()
        self.network = AutoModel.from_pretrained(model, attn_implementation=attention).eval()
        self.is_last = json.loads((model / "1_Pooling/config.json").read_text()).get("pooling_mode_lasttoken", False)
        # What a causal network keeps for a next token is of no use to a vector.
        self.fixed = {"use_cache": False} if self.is_last else {}

    def forward(self, input_ids, attention_mask, token_type_ids=None):
        fixed = self.fixed if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.network(input_ids=input_ids, attention_mask=attention_mask, **fixed).last_hidden_state
        if self.is_last:
            last = (attention_mask.sum(1) - 1).view(-1, 1, 1).expand(-1, 1, hidden.shape[-1])
            return torch.nn.functional.normalize(hidden.gather(1, last).squeeze(1), dim=-1)
        kept = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return torch.nn.functional.normalize((hidden * kept).sum(1) / kept.sum(1), dim=-1)


def example(names):
    """Two texts, one of them padded."""
    ids = torch.randint(1000, 2000, (2, 16), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    known = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: known[name] for name in names}


def write_onnx(path, model):
    """In f32; attention in single steps, as fusers look for it."""
    names = inputs(model)
    axes = {name: {0: "texts", 1: "tokens"} for name in names} | {"vector": {0: "texts"}}
    how = {"input_names": names, "output_names": ["vector"], "dynamic_axes": axes}
    with torch.no_grad():
        torch.onnx.export(Encoder(model, "eager"), tuple(example(names).values()), str(path), opset_version=17, dynamo=False, **how)
