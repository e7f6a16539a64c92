"""OpenVINO: the traced model in f32, in bf16, and in int8 as nncf quantises it after training."""

import json

import openvino
from batches import Batches, config, inputs, made, need_bf16, padded


class Engine(Batches):
    def __init__(self, kind, model, work, threads):
        if kind == "bf16":
            need_bf16()
        path = made(work.parent / "graph.xml", trace, model)
        if kind == "int8":
            path = made(work / "graph-int8.xml", quantize, path, model)
        # In int8, what nncf leaves alone is computed in what OpenVINO takes to be best here.
        self.precision = {} if kind == "int8" else {"INFERENCE_PRECISION_HINT": kind}
        super().__init__(model, threads, lambda apart: self.compiled(path, threads, apart))

    def compiled(self, path, threads, apart):
        """Runs a batch, as many at once as there are threads if `apart`."""
        way = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": threads} if apart else {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
        compiled = openvino.Core().compile_model(str(path), "CPU", self.precision | way | {"INFERENCE_NUM_THREADS": threads})
        # A request of its own for every call under way.
        requests = [compiled.create_infer_request() for _ in range(threads)]

        def infer(ids):
            request = requests.pop()
            try:
                return request.infer(padded(ids, self.inputs))[0].copy()
            finally:
                requests.append(request)

        return infer


def trace(path, model):
    from graph import Encoder, example

    # A window leaves padding far from the text with nothing to see, of which the fused attention makes NaN for the whole text.
    attention = "eager" if "local_attention" in config(model) else "sdpa"
    traced = openvino.convert_model(Encoder(model, attention), example_input=example(inputs(model)))
    openvino.save_model(traced, str(path), compress_to_fp16=False)


def quantize(path, traced, model):
    """Static scales, set by texts of their own."""
    import nncf

    texts = json.loads(path.with_name("workloads.json").read_text(encoding="utf-8"))["calibration"]["texts"]
    encodings = Batches(model, 1, None).tokenizer.encode_batch_fast(texts)
    data = nncf.Dataset([padded([encoding.ids], inputs(model)) for encoding in encodings])
    own = {"model_type": nncf.ModelType.TRANSFORMER, "preset": nncf.QuantizationPreset.MIXED, "subset_size": len(texts)}
    openvino.save_model(nncf.quantize(openvino.Core().read_model(str(traced)), data, **own), str(path), compress_to_fp16=False)
