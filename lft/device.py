"""The device and threads of a job, as the profile says, never chosen silently."""

from __future__ import annotations

import torch

from lft.config import Profile
from lft.errors import UsageError


def use_device(profile: Profile) -> torch.device:
    """Set the number of threads and return the device to compute on.

    Raises:
        UsageError: the device is unknown, or CUDA is asked for and absent.
    """
    torch.set_num_threads(profile.threads)
    try:
        device = torch.device(profile.device)
    except RuntimeError:
        raise UsageError(
            f"device: unknown device {profile.device!r}; use cpu, cuda or cuda:N"
        ) from None
    if device.type == "cuda":
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= found:
            raise UsageError(
                f"device: {profile.device!r} was asked for, but this machine has {found} CUDA "
                f"devices; set device: cpu in the profile"
            )
        torch.use_deterministic_algorithms(True, warn_only=True)
    elif device.type != "cpu":
        raise UsageError(f"device: {profile.device!r} is not supported; use cpu, cuda or cuda:N")
    return device
