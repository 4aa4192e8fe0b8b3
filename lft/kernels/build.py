"""The package's native kernels, which replace plain PyTorch for float32 on the CPU.

They are compiled at first use, once per machine and version, into the user's cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from lft.errors import UsageError
from lft.types import Batch, TaskBatch

log = logging.getLogger(__name__)
# On a machine without a GPU it says so whenever something is compiled for the CPU.
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)

Kernel = Literal["auto", "fused", "torch"]
"""``torch`` is plain PyTorch; ``fused`` the native kernels, for float32 on the CPU, or an error;
``auto`` the native kernels where they can be had."""

_SOURCES = tuple(sorted(Path(__file__).parent.glob("csrc/*.cpp")))
_HEADER = Path(__file__).parent / "csrc" / "common.h"
_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fopenmp",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
)
_SIMD_FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels can be used there; builds them if they never were.

    Warns:
        RuntimeWarning: once, if they cannot be built, with the reason.
    """
    return device.type == "cpu" and dtype == torch.float32 and not _problem()


def chosen(kernel: Kernel, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernels serve tensors of this kind, under this setting.

    Raises:
        UsageError: the setting is ``fused``, and they cannot be built or do not run on the device.
    """
    if kernel == "torch":
        return False
    if kernel == "fused" and not available(device, torch.float32):
        why = _problem() if device.type == "cpu" else f"they do not run on {device}"
        raise UsageError(f"kernel: fused was asked for, but {why}; or set kernel: auto")
    return available(device, dtype)


def used(kernel: Kernel, device: str) -> Kernel:
    """``fused`` or ``torch``: what a setting comes to on a device, for the record."""
    return "fused" if chosen(kernel, torch.device(device), torch.float32) else "torch"


LossAndGradients = Callable[[list[Tensor], Tensor, Tensor], tuple[Tensor, list[Tensor]]]
"""From parameters, ``x`` and ``y`` the loss of each task (B,) and its gradients."""


def loss(
    kernel: LossAndGradients,
    params: dict[str, Tensor],
    x: Tensor,
    y: Tensor,
    plain: Callable[[dict[str, Tensor]], Tensor],
) -> Tensor:
    """The loss of each task (B,), differentiable in the parameters.

    Args:
        params: in the kernel's order.
        plain: the same loss in PyTorch; it is differentiated instead where the graph is kept
            (``create_graph``), as second derivatives need it.
    """
    losses: Tensor = _Loss.apply(kernel, plain, tuple(params), x, y, *params.values())
    return losses


@torch.no_grad()
def loss_and_gradients(
    kernel: LossAndGradients,
    params: dict[str, Tensor],
    batch: Batch,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of each task (B,) and its gradients, without autograd.

    Args:
        params: in the kernel's order.

    Raises:
        RuntimeError: a shape, dtype or label does not fit.
    """
    leaves = [leaf.contiguous() for leaf in params.values()]
    losses, gradients = kernel(leaves, batch.x.contiguous(), batch.y.contiguous())
    return losses, dict(zip(params, gradients, strict=True))


def descend(
    kernel: Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]],
    params: dict[str, Tensor],
    tasks: TaskBatch,
    steps: int,
    step_size: float,
) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """θ⁽ᴷ⁾ by gradient descent on the support set (eq. 2), and what MAML asks of it (eq. 1).

    Args:
        kernel: computes it from parameters and the tasks' tensors.
        params: in the kernel's order.

    Returns:
        f(θ⁽ᴷ⁾; query) of each task (B,), its gradient in θ⁽⁰⁾, and θ⁽ᴷ⁾.

    Raises:
        RuntimeError: a shape, dtype or label does not fit.
    """
    leaves = [leaf.contiguous() for leaf in params.values()]
    data = [leaf.contiguous() for part in tasks for leaf in part]
    losses, gradients, ends = kernel(leaves, *data, steps, step_size)
    return losses, dict(zip(params, gradients, strict=True)), dict(zip(params, ends, strict=True))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernel: Any, plain: Any, names: Any, x: Tensor, y: Tensor, *leaves: Tensor
    ) -> Tensor:
        losses: Tensor
        losses, gradients = kernel(
            [leaf.contiguous() for leaf in leaves], x.contiguous(), y.contiguous()
        )
        ctx.plain, ctx.names = plain, names
        ctx.save_for_backward(*leaves, *gradients)
        return losses

    @staticmethod
    def backward(ctx: Any, d_losses: Tensor) -> tuple[Tensor | None, ...]:
        leaves = ctx.saved_tensors[: len(ctx.names)]
        gradients = ctx.saved_tensors[len(ctx.names) :]
        if torch.is_grad_enabled():
            losses = ctx.plain(dict(zip(ctx.names, leaves, strict=True)))
            scaled = torch.autograd.grad(losses, leaves, d_losses, create_graph=True)
        else:
            scaled = tuple(g * d_losses.view(-1, *[1] * (g.dim() - 1)) for g in gradients)
        return (None, None, None, None, None, *scaled)


@functools.cache
def _problem() -> str:
    """Load the library into the process, building it first if need be.

    Returns:
        Why it could not be built and what to do; empty if all is well.
    """
    flags = (*_FLAGS, *_SIMD_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    library = user_cache_path("lft") / f"kernels-{_key(flags)}.so"
    try:
        if not library.exists():
            _build(library, flags)
        torch.ops.load_library(library)
    except (ImportError, OSError, RuntimeError) as error:
        problem = (
            f"the native kernels could not be built ({_reason(error)}). They need a C++20 "
            "compiler: install g++ 11 or newer (Debian, Ubuntu: apt install g++), or name one in "
            "the variable CXX"
        )
        slower = "plain PyTorch is used, with the same results, several times slower"
        warnings.warn(f"{problem}; until then {slower}", RuntimeWarning, stacklevel=3)
        return problem
    return ""


def _key(flags: tuple[str, ...]) -> str:
    """What the library's content depends on, as a file name."""
    sources = (source.read_text() for source in (*_SOURCES, _HEADER))
    parts = (*sources, torch.__version__, sysconfig.get_platform(), *flags)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(library: Path, flags: tuple[str, ...]) -> None:
    """Compile in a folder of its own and rename: a killed build leaves nothing to trip over.

    Processes that start together wait for the first; the lock ends with its holder.
    """
    library.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        if library.exists():
            return
        log.info("compiling the native kernels, once on this machine for this version")
        began = time.perf_counter()
        import ninja
        from torch.utils import cpp_extension

        path = os.environ.get("PATH", os.defpath)
        os.environ["PATH"] = os.pathsep.join([path, ninja.BIN_DIR])
        try:
            with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as folder:
                cpp_extension.load(
                    "kernels",
                    [str(source) for source in _SOURCES],
                    extra_cflags=list(flags),
                    extra_ldflags=["-fopenmp"],
                    build_directory=folder,
                    is_python_module=False,
                )
                (Path(folder) / "kernels.so").rename(library)
            log.info("compiled in %.0f s: %s", time.perf_counter() - began, library)
        finally:
            os.environ["PATH"] = path


def _reason(error: Exception) -> str:
    """The line of a compiler's output that tells most."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = (line for line in lines if "error:" in line or "not found" in line)
    return next(telling, lines[-1]).strip()
