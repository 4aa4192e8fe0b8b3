"""Save and load tensors as safetensors with a checksum, never as pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lft.errors import Damaged, UsageError
from lft.storage.atomic import atomic_path


def save_tensors(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and a JSON description atomically.

    Args:
        path: the file.
        tensors: by name.
        info: JSON description, stored in the file's metadata.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    stored = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in tensors.items()}
    text = json.dumps(info)
    # A single entry: safetensors writes several in random order, but files must be reproducible.
    metadata = {"info": f"{_checksum(stored, text)} {text}"}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(stored, metadata))


def load_tensors(
    path: Path, device: torch.device | str = "cpu", *, again: str = "delete it and run again"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file that :func:`save_tensors` wrote.

    Args:
        path: the file.
        device: where the tensors go.
        again: what to do about a damaged file.

    Returns:
        Tensors by name, and the description.

    Raises:
        Damaged: the file is not a safetensors file, or was truncated or altered.
        UsageError: the file is missing or cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        checksum, _, text = metadata["info"].partition(" ")
        if checksum != _checksum(tensors, text):
            raise ValueError("its checksum does not match")
        info = json.loads(text)
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; run the step that writes it") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except (SafetensorError, KeyError, ValueError) as error:
        reason = "lft did not write it" if isinstance(error, KeyError) else error
        raise Damaged(f"{path} is damaged ({reason}); {again}") from None
    return {name: leaf.to(device) for name, leaf in tensors.items()}, info


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        leaf = tensors[name]
        digest.update(f"{name} {leaf.dtype} {tuple(leaf.shape)}".encode())
        digest.update(leaf.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put ``prefix/`` before every name."""
    return {f"{prefix}/{name}": leaf for name, leaf in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Select entries whose names start with ``prefix/``, and remove the prefix."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): leaf for name, leaf in tensors.items() if name.startswith(start)
    }
