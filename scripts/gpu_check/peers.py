"""The others on the same weights, at their best batch size: sentence-transformers, and plain torch on ready-made ids."""

import time


class Peers:
    """Loads both once. bf16 with SDPA on a GPU; f32 on a processor, where bf16 would only slow them down."""

    def __init__(self, args, folder):
        import sentence_transformers
        import torch

        self.torch, self.device = torch, args.device
        self.dtype = torch.bfloat16 if args.cuda else torch.float32
        kwargs = {"dtype": self.dtype, "attn_implementation": "sdpa"}
        self.model = sentence_transformers.SentenceTransformer(str(folder), device=args.device, model_kwargs=kwargs, local_files_only=True)
        self.model.eval()
        if args.small:
            # A rehearsal may share its machine; threads that wait for each other would then mostly wait.
            torch.set_num_threads(1)
        self.folder = folder
        # A rehearsal's batch is small: 64 texts of skewed lengths in one batch would be padding for the most part.
        self.batches = [16] if args.small else [32, 128, 512]

    def sync(self):
        if self.device.startswith("cuda"):
            self.torch.cuda.synchronize()

    def exact(self, texts: list[str]):
        """The vectors in f32, on the processor."""
        import sentence_transformers

        model = sentence_transformers.SentenceTransformer(str(self.folder), device="cpu", model_kwargs={"dtype": self.torch.float32}, local_files_only=True)
        return model.encode(texts, batch_size=4).tolist()

    def best(self, sizes: list[int], run, seconds: float) -> tuple[float, int]:
        """Tokens per second at the best batch size: `run(first, last, batch)` computes those texts."""
        found = (0.0, 0)
        for batch in self.batches:
            # A batch of long texts that needs more memory than there is says nothing about the smaller ones.
            try:
                rate = self.rate(sizes, lambda last: run(last, batch), seconds)
            except self.torch.OutOfMemoryError:
                self.torch.cuda.empty_cache()
                continue
            found = max(found, (rate, batch))
        return found

    def rate(self, sizes: list[int], run, seconds: float) -> float:
        """Twice as many texts each time until they take long enough; then, if there are no more, the same ones again."""
        count = min(len(sizes), 64)
        run(count)
        self.sync()
        while True:
            started, times = time.perf_counter(), 0
            while not times or (count == len(sizes) and time.perf_counter() - started < seconds / 2):
                run(count)
                self.sync()
                times += 1
            took = time.perf_counter() - started
            if took >= seconds / 2 or count == len(sizes):
                return times * sum(sizes[:count]) / took
            count = min(len(sizes), count * 2)

    def sentence_transformers(self, texts: list[str], sizes: list[int], seconds: float) -> tuple[float, int]:
        """`encode`, which sorts by length itself; tokenising and the copy to the host are part of it, as of the server."""
        return self.best(sizes, lambda last, batch: self.model.encode(texts[:last], batch_size=batch, show_progress_bar=False), seconds)

    def plain(self, sizes: list[int], seconds: float) -> tuple[float, int]:
        """The network alone on padded ids of texts sorted by length, on the device already: no tokenising, no copies, no server."""
        torch, network = self.torch, self.model[0].auto_model

        def run(last, batch):
            order = sorted(sizes[:last])
            for start in range(0, last, batch):
                part = order[start : start + batch]
                ids = torch.randint(1000, 20000, (len(part), part[-1]), device=self.device)
                mask = (torch.arange(part[-1], device=self.device) < torch.tensor(part, device=self.device)[:, None]).long()
                with torch.inference_mode():
                    network(input_ids=ids, attention_mask=mask)

        return self.best(sizes, run, seconds)
