"""An engine as a process of its own, held still while it is not its turn: what it answers, the processor time it used, and its memory."""

import json
import os
import pathlib
import re
import signal
import subprocess

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds of processor time of all threads so far."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * TICK_S


def busy_s() -> float:
    """Seconds of processor time of the whole machine so far."""
    user, nice, system, _, _, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) * TICK_S


def peak_mib(pid: int) -> float:
    """The most memory that was resident at a time."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) / 1024


class Failed(Exception):
    """An engine ended instead of giving an answer."""


class Engine:
    """Answers commands in JSON, one a line. `absent` says why it cannot run, if it cannot."""

    def __init__(self, command: list, log: pathlib.Path):
        self.log = log.open("w")
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.absent = None
        self.told = self.read()
        if "ready" in self.told:
            self.hold()
        else:
            self.absent = self.told.get("absent", "ended before it was ready")
            self.close()

    def read(self) -> dict:
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"absent": f"ended with code {self.process.wait()}"}

    def ask(self, **command) -> dict:
        """The answer, with `cpu_s`, the processor time that it took, and `others_s`, what everything else took. Nothing else of ours runs meanwhile."""
        self.process.send_signal(signal.SIGCONT)
        before, busy = cpu_s(self.process.pid), busy_s()
        self.process.stdin.write(json.dumps(command, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.read()
        if "absent" in answer:
            raise Failed(f"{answer['absent']} (at {command})")
        answer["cpu_s"] = cpu_s(self.process.pid) - before
        answer["others_s"] = max(busy_s() - busy - answer["cpu_s"], 0.0)
        self.hold()
        return answer

    def hold(self):
        """Threads that wait by spinning would take time from those that are measured."""
        self.process.send_signal(signal.SIGSTOP)

    def peak_mib(self) -> float:
        return peak_mib(self.process.pid)

    def close(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.stdin.close()
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.log.close()
