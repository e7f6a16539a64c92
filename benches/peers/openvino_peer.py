"""OpenVINO: the traced model in f32, in bf16, and in int8 as nncf quantises it after training."""

import json

import openvino
from batches import Batches, made, need_bf16, padded


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        if kind == "bf16":
            need_bf16()
        path = made(work / "graph.xml", trace, model)
        if kind == "int8":
            path = made(work / "graph-int8.xml", quantize, path, model)
        # In int8, what nncf leaves alone is computed in what OpenVINO takes to be best here.
        precision = {} if kind == "int8" else {"INFERENCE_PRECISION_HINT": kind}
        together = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
        apart = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
        compiled = [openvino.Core().compile_model(str(path), "CPU", precision | way) for way in (together, apart)]
        # A request of its own for every call under way.
        self.requests = [[model.create_infer_request() for _ in range(threads)] for model in compiled]
        super().__init__(model, threads, self.infer)

    def infer(self, ids, apart):
        request = self.requests[apart].pop()
        try:
            return request.infer(padded(ids))[0].copy()
        finally:
            self.requests[apart].append(request)


def trace(path, model):
    from graph import Encoder, example

    openvino.save_model(openvino.convert_model(Encoder(model, "sdpa"), example_input=example()), str(path), compress_to_fp16=False)


def quantize(path, traced, model):
    """Static scales, set by texts of their own."""
    import nncf

    texts = json.loads((path.parent / "workloads.json").read_text(encoding="utf-8"))["calibration"]["texts"]
    encodings = Batches(model, 1, None).tokenizer.encode_batch_fast(texts)
    data = nncf.Dataset([padded([encoding.ids]) for encoding in encodings])
    own = {"model_type": nncf.ModelType.TRANSFORMER, "preset": nncf.QuantizationPreset.MIXED, "subset_size": len(texts)}
    openvino.save_model(nncf.quantize(openvino.Core().read_model(str(traced)), data, **own), str(path), compress_to_fp16=False)
