"""ONNX Runtime: f32, of BERT with its fused operations, and that graph with its weights in int8 and activations quantised as they come."""

import onnxruntime
from batches import Batches, has, made, padded


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        path = made(work.parent / "graph-fused.onnx", fuse, model)
        if kind == "int8":
            path = made(work.parent / "graph-int8.onnx", quantize, path)
        super().__init__(model, threads, lambda apart: self.session(path, 1 if apart else threads))

    def session(self, path, threads):
        """Runs a batch on so many threads."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return lambda ids: session.run(None, padded(ids, self.inputs))[0]


def fuse(path, model):
    """The graph with attention, GELU and layer norms as one operation each; other families as exported (on ModernBERT this fuser brought nothing)."""
    from graph import write_onnx
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoConfig

    plain, shape = path.with_name("graph.onnx"), AutoConfig.from_pretrained(model)
    write_onnx(plain, model)
    if shape.model_type != "bert":
        plain.rename(path)
        return
    graph = optimize_model(str(plain), model_type="bert", num_heads=shape.num_attention_heads, hidden_size=shape.hidden_size)
    plain.unlink()
    graph.save_model_to_file(str(path))


def quantize(path, fused):
    """Weights in signed numbers where products of four are exact, else in unsigned ones, as its documentation advises."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = QuantType.QInt8 if has("avx512_vnni", "avx_vnni") else QuantType.QUInt8
    # What the fused operations give has a type that its quantiser cannot infer.
    known = {"DefaultTensorType": onnx.TensorProto.FLOAT}
    quantize_dynamic(str(fused), str(path), weight_type=weights, per_channel=True, extra_options=known)
