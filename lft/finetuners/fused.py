"""The coordinate-wise LSTM of :mod:`lft.finetuners.lstm` as a native kernel: float32, CPU.

For a gradient g of one coordinate, x = preprocess(g; p) (Andrychowicz et al., 2016, appendix A) and
layers l = 1 … L with input x⁽ˡ⁾ (x⁽¹⁾ = x, x⁽ˡ⁾ = h⁽ˡ⁻¹⁾)

    i, f, g, o = σ, σ, tanh, σ of W_ih x⁽ˡ⁾ + W_hh h⁽ˡ⁾ + b
    c⁽ˡ⁾ ← f c⁽ˡ⁾ + i g        h⁽ˡ⁾ ← o tanh c⁽ˡ⁾        Δ = scale · (w_out · h⁽ᴸ⁾ + b_out)

The kernel takes a few dozen coordinates at a time through all layers, and in the backward pass
through all steps, so that activations never leave the cache: a segment's backward pass computes
them again from the inputs. Coordinates are spread over torch's threads; results do not depend on
how many.

It is compiled at first use, once per machine and version, into the user's cache folder.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import sysconfig
import tempfile
import warnings
from pathlib import Path

import torch
from filelock import FileLock
from platformdirs import user_cache_path
from torch import Tensor

from lft.types import Params

_SOURCE = Path(__file__).with_suffix(".cpp")
_FLAGS = ("-O3", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_SIMD_FLAGS = {
    "AVX2": ("-mavx2", "-mfma"),
    "AVX512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma"),
}


def available(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the kernel can be used there; builds it if it never was.

    Warns:
        RuntimeWarning: once, if it cannot be built, with the reason.
    """
    return device.type == "cpu" and dtype == torch.float32 and _loaded()


def step(
    weights: Params, state: Tensor, gradient: Tensor, *, p: float, scale: float
) -> tuple[Tensor, Tensor]:
    """One step of N coordinates; no derivative is recorded.

    Args:
        weights: as :func:`lft.finetuners.lstm.init_weights` names and shapes them.
        state: (2, L, H, N), h and c of every coordinate.
        gradient: (N,). NaN and infinity reach the update as they do in plain PyTorch.
        p: range of the preprocessing's logarithm, in (0, 80].
        scale: factor of the update, in units of the optimizee.

    Returns:
        The new state, and the update Δ (N,).

    Raises:
        RuntimeError: a shape, dtype or p does not fit.
    """
    tensors = [weights[name].contiguous() for name in _names(weights)]
    result: tuple[Tensor, Tensor] = torch.ops.lft.lstm_step(
        tensors, state.contiguous(), gradient.contiguous(), p, scale
    )
    return result


def segment_vjp(
    weights: Params, start: Tensor, inputs: Tensor, cotangents: Tensor, *, p: float, scale: float
) -> Params:
    """∇_weights Σ_k ⟨cotangents_k, Δ⁽ᵏ⁾⟩ over K steps, inputs and start state being constants.

    The same numbers come out for any number of threads.

    Args:
        weights: as in :func:`step`.
        start: (2, L, H, N), the state before the segment.
        inputs: (K, N), the gradients fed in.
        cotangents: (K, N), of the updates.
        p: as in :func:`step`.
        scale: as in :func:`step`.

    Returns:
        A gradient for every weight, under its name.

    Raises:
        RuntimeError: a shape, dtype or p does not fit.
    """
    names = _names(weights)
    gradients = torch.ops.lft.lstm_segment_vjp(
        [weights[name].contiguous() for name in names],
        start.contiguous(),
        inputs.contiguous(),
        cotangents.contiguous(),
        p,
        scale,
    )
    return dict(zip(names, gradients, strict=True))


def _names(weights: Params) -> list[str]:
    """The weights' names in the order of the native code."""
    n_layers = sum(name.endswith(".w_hh") for name in weights)
    layers = [f"layer{k}.{part}" for k in range(n_layers) for part in ("w_ih", "w_hh", "b")]
    return [*layers, "out.w", "out.b"]


@functools.cache
def _loaded() -> bool:
    """Load the library into the process, building it first if need be."""
    flags = (*_FLAGS, *_SIMD_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()))
    library = user_cache_path("lft") / f"fused-lstm-{_key(flags)}.so"
    try:
        if not library.exists():
            _build(library, flags)
        torch.ops.load_library(library)
    except (ImportError, OSError, RuntimeError) as error:
        warnings.warn(
            f"the fused LSTM kernel could not be built ({_reason(error)}), so the plain PyTorch "
            "path is used: same results, several times slower. It needs a C++20 compiler: install "
            "g++ 11 or newer (Debian, Ubuntu: apt install g++), or name one in the variable CXX",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
    return True


def _key(flags: tuple[str, ...]) -> str:
    """What the library's content depends on, as a file name."""
    parts = (_SOURCE.read_text(), torch.__version__, sysconfig.get_platform(), *flags)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(library: Path, flags: tuple[str, ...]) -> None:
    """Compile in a folder of its own and rename: a killed build leaves nothing to trip over.

    Processes that start together wait for the first; the lock ends with its holder.
    """
    library.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(library.with_suffix(".lock")):
        if library.exists():
            return
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        import ninja
        from torch.utils import cpp_extension

        path = os.environ.get("PATH", os.defpath)
        os.environ["PATH"] = os.pathsep.join([path, ninja.BIN_DIR])
        try:
            with tempfile.TemporaryDirectory(prefix="build-", dir=library.parent) as folder:
                cpp_extension.load(
                    "fused_lstm",
                    [str(_SOURCE)],
                    extra_cflags=list(flags),
                    extra_ldflags=["-fopenmp"],
                    build_directory=folder,
                    is_python_module=False,
                )
                (Path(folder) / "fused_lstm.so").rename(library)
        finally:
            os.environ["PATH"] = path


def _reason(error: Exception) -> str:
    """The line of a compiler's output that tells most."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    telling = (line for line in lines if "error:" in line or "not found" in line)
    return next(telling, lines[-1]).strip()
