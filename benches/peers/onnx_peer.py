"""ONNX Runtime: f32 with its fused BERT operations, and that graph with its weights in int8 and activations quantised as they come."""

import onnxruntime
from batches import Batches, has, made, padded


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        path = made(work / "graph-fused.onnx", fuse, model)
        if kind == "int8":
            path = made(work / "graph-int8.onnx", quantize, path)
        # Together, and apart: one thread for each batch.
        self.sessions = [session(path, threads), session(path, 1)]
        super().__init__(model, threads, lambda ids, apart: self.sessions[apart].run(None, padded(ids))[0])


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def fuse(path, model):
    """The graph with attention, GELU and layer norms as one operation each."""
    from graph import write_onnx
    from onnxruntime.transformers.optimizer import optimize_model
    from transformers import AutoConfig

    plain, shape = path.with_name("graph.onnx"), AutoConfig.from_pretrained(model)
    write_onnx(plain, model)
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
