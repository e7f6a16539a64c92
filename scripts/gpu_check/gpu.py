"""What the GPU does while something runs: the share of time with a kernel on it, and its memory, as nvidia-smi tells."""

import subprocess
import threading


class Watch:
    """Samples every 100 ms between enter and exit; without a GPU it has no samples."""

    def __init__(self, args):
        self.on, self.samples = args.cuda, []

    def __enter__(self):
        if self.on:
            fields = "--query-gpu=utilization.gpu,memory.used"
            self.smi = subprocess.Popen(["nvidia-smi", fields, "--format=csv,noheader,nounits", "-lms", "100"], stdout=subprocess.PIPE, text=True)
            self.reader = threading.Thread(target=self.read, daemon=True)
            self.reader.start()
        return self

    def read(self):
        for line in self.smi.stdout:
            busy, _, memory = line.partition(",")
            if busy.strip().isdigit() and memory.strip().isdigit():
                self.samples.append((int(busy), int(memory)))

    def __exit__(self, *_):
        if self.on:
            self.smi.terminate()
            self.smi.wait()
            self.reader.join(timeout=5)

    def idle_share(self) -> float | None:
        """Without the first and the last samples, which fall before and after the load."""
        inner = self.samples[len(self.samples) // 4 : -2]
        return 1 - sum(busy for busy, _ in inner) / len(inner) / 100 if inner else None
