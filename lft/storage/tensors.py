"""Tensors on disk: safetensors with a checksum, never pickle."""

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
        info: kept in the file's metadata and returned by :func:`load_tensors`.

    Raises:
        UsageError: the folder cannot be written or the disk is full.
    """
    stored = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in tensors.items()}
    text = json.dumps(info)
    # One entry only: safetensors writes several in random order, and files must repeat exactly.
    metadata = {"info": f"{_checksum(stored, text)} {text}"}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(stored, metadata))


def load_tensors(
    path: Path, device: torch.device | str = "cpu", *, again: str = "delete it and run again"
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what :func:`save_tensors` wrote: tensors and description.

    Args:
        path: the file.
        device: where the tensors go.
        again: what to do about a damaged file.

    Raises:
        Damaged: the file is no safetensors file or was altered.
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
        reason = "it is no file of this program" if isinstance(error, KeyError) else error
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
    """``prefix/`` put before every name."""
    return {f"{prefix}/{name}": leaf for name, leaf in tensors.items()}


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Entries whose name starts with ``prefix/``, the prefix taken off."""
    start = f"{prefix}/"
    return {
        name.removeprefix(start): leaf for name, leaf in tensors.items() if name.startswith(start)
    }
