"""What a machine is and can do: one line of JSON on stdout."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FUNCTIONS = 32
"""Transcendental functions in a row, on numbers that stay in registers."""


def seconds(run: Callable[[], object], device: str, repetitions: int = 10) -> float:
    """Median of a call, after two that do not count."""

    def once() -> float:
        began = time.perf_counter()
        run()
        if device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    once(), once()
    return statistics.median(once() for _ in range(repetitions))


def functions(x: Tensor) -> Tensor:
    for _ in range(FUNCTIONS // 2):
        x = x.tanh().sigmoid()
    return x


def ceilings(device: str) -> dict[str, float]:
    """Measured limits: bytes, multiply-adds and functions a second; seconds of a small call."""
    on_cpu = device == "cpu"
    n = 2**24 if on_cpu else 2**30
    source = torch.ones(n // 4, device=device)
    target = torch.empty_like(source)
    side = 1024 if on_cpu else 8192
    a = torch.randn(side, side, generator=torch.Generator().manual_seed(0)).to(device)
    one = torch.ones(8, device=device)

    def small() -> None:
        for _ in range(100):
            one.add_(1)

    return {
        "copied_bytes_per_second": 2 * n / seconds(lambda: target.copy_(source), device),
        "multiply_adds_per_second": side**3 / seconds(lambda: a @ a, device),
        "small_call_seconds": seconds(small, device) / 100,
    }


def function_rate(device: str) -> dict[str, float]:
    """tanh and sigmoid in turn, fused by torch.compile on a GPU."""
    x = torch.ones(2**16 if device == "cpu" else 2**26, device=device)
    chain = functions if device == "cpu" else torch.compile(functions)
    return {"functions_per_second": len(x) * FUNCTIONS / seconds(lambda: chain(x), device)}


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.machine()


def about(device: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "device": device,
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "simd": torch.backends.cpu.get_cpu_capability(),
    }
    if device != "cpu":
        properties = torch.cuda.get_device_properties(device)
        found |= {
            "gpu": properties.name,
            "gpu_memory_gb": round(properties.total_memory / 1e9, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    print(json.dumps(about(device)), flush=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    for part in (ceilings, function_rate):
        with torch.no_grad():
            print(json.dumps(part(device)), flush=True)


if __name__ == "__main__":
    main()
