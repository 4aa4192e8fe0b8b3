"""Universal adversarial perturbations (sec. 4, eq. 12)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Self

import torch
from torch import Generator, Tensor

from lft.config import AttackFamily, AttackLoss
from lft.tasks.base import Differentiated, Phase, TaskFamily
from lft.tasks.pools import Pools
from lft.tasks.victim import Victim
from lft.types import Batch, Params, TaskBatch


def margins(scores: Tensor, labels: Tensor) -> Tensor:
    """Score of the true class minus the largest other score (Carlini & Wagner, 2017).

    Args:
        scores: (…, classes) probabilities, log-probabilities or logits.
        labels: (…) true classes.

    Returns:
        (…); a margin ≤ 0 means that the victim is fooled.
    """
    true = scores.gather(-1, labels[..., None])[..., 0]
    others = scores.scatter(-1, labels[..., None], -torch.inf)
    return true - others.amax(-1)


def distortion(perturbation: Tensor) -> Tensor:
    """Mean |δ| over channels and pixels for each task, (B,).

    Args:
        perturbation: δ (B, C, H, W), in the units of images in [0, 1].
    """
    return perturbation.abs().flatten(1).mean(1)


class Perturbation:
    """One perturbation δ per task, meant to fool the victim on every image of the task.

    f(δ; D) = (1/|D|) Σ max{z(x + δ; y) − max_{c≠y} z(x + δ; c), 0} + λ · mean|δ|   (eq. 12)

    The settings choose z (probability, log-probability or logit) and whether x + δ is clipped to
    [0, 1]. The ℓ1 norm is a mean over pixels, so λ means the same for images of every size.

    Args:
        settings: λ, margin, clipping.
        victim: maps images (n, C, H, W) to logits (n, classes); its weights are constants.
    """

    def __init__(self, settings: AttackLoss, victim: Callable[[Tensor], Tensor]) -> None:
        self.settings = settings
        self.victim = victim

    def random(
        self, shape: tuple[int, ...], generator: Generator, dtype: torch.dtype = torch.float32
    ) -> Params:
        """Draw δ⁽⁰⁾ ~ N(0, init_scale²), or uniformly in ±init_scale.

        Args:
            shape: of δ⁽⁰⁾, (B, C, H, W).
        """
        where = generator.device
        if self.settings.start == "normal":
            drawn = torch.randn(shape, generator=generator, device=where, dtype=dtype)
        else:
            drawn = 2 * torch.rand(shape, generator=generator, device=where, dtype=dtype) - 1
        return {"delta": self.settings.init_scale * drawn}

    def attacked(self, params: Params, images: Tensor) -> Tensor:
        """x + δ for images (B, n, C, H, W), clipped to [0, 1] if the settings say so."""
        shifted = images + params["delta"][:, None]
        return shifted.clamp(0, 1) if self.settings.clip else shifted

    def logits(self, images: Tensor) -> Tensor:
        """The victim's logits (B, n, classes) for images (B, n, C, H, W)."""
        logits: Tensor = self.victim(images.flatten(0, 1))
        return logits.view(*images.shape[:2], -1)

    def loss(self, params: Params, batch: Batch) -> Tensor:
        """f(δ; D) of each task, (B,).

        :meth:`Attack.loss_and_gradients` codes its derivative by hand: change both together.
        """
        scores = self.logits(self.attacked(params, batch.x))
        if self.settings.margin == "probability":
            scores = scores.softmax(-1)
        # Log-probabilities and logits have the same differences, so no log-softmax is needed.
        hinge = margins(scores, batch.y).relu().mean(1)
        return hinge + self.settings.distortion_weight * distortion(params["delta"])

    def metrics(self, params: Params, batch: Batch) -> dict[str, Tensor]:
        """Attack success rate and distortion of each task, each (B,).

        Returns:
            ``asr``: share of images whose hinge in eq. 12 is 0, NaN where δ is not finite;
            ``distortion``: mean |δ|, not finite where δ is not.
        """
        logits = self.logits(self.attacked(params, batch.x))
        fooled = (margins(logits, batch.y) <= 0).to(logits.dtype).mean(1)
        size = distortion(params["delta"])
        return {"asr": fooled.where(size.isfinite(), torch.nan), "distortion": size}


class Attack(Perturbation, TaskFamily, Differentiated):
    """Find one universal perturbation for a few images of a few classes (sec. 4).

    Args:
        settings: task sizes, λ, margin, clipping.
        victim: as for :class:`Perturbation`.
        pools: images of each phase.

    Raises:
        UsageError: there are too few classes, or a class has too few images.
    """

    settings: AttackFamily
    victim: Victim

    def __init__(self, settings: AttackFamily, victim: Victim, pools: Pools) -> None:
        pools.check(settings.classes, settings.support, settings.query)
        super().__init__(settings, victim)
        self.pools = pools

    def sample(self, n_tasks: int, generator: Generator, phase: Phase) -> TaskBatch:
        """Draw tasks: images (B, classes · k, C, H, W) in [0, 1] and labels (B, classes · k)."""
        return self.pools.sample(
            n_tasks,
            generator,
            phase,
            ways=self.settings.classes,
            support=self.settings.support,
            query=self.settings.query,
            relabel=False,
            dtype=self.dtype,
        )

    @torch.no_grad()
    def loss_and_gradients(self, params: Params, batch: Batch) -> tuple[Tensor, Params] | None:
        """See :class:`lft.tasks.base.Differentiated`.

        None for a margin of probabilities, or where the victim has no pullback.
        """
        if self.settings.margin == "probability":
            return None
        delta, (images, labels) = params["delta"], batch
        attacked = self.attacked(params, images)
        found = self.victim.with_pullback(attacked.flatten(0, 1))
        if found is None:
            return None
        logits, pullback = found
        true = labels.flatten()[:, None]
        rivals, rival = logits.scatter(1, true, -torch.inf).max(1, keepdim=True)
        hinge = (logits.gather(1, true) - rivals).relu()
        share = (hinge > 0).to(logits.dtype) / labels.shape[1]
        d_logits = torch.zeros_like(logits).scatter(1, true, share).scatter(1, rival, -share)
        d_attacked = pullback(d_logits).view_as(attacked)
        if self.settings.clip:
            d_attacked = d_attacked.where(attacked == images + delta[:, None], 0)
        weight = self.settings.distortion_weight
        losses = hinge.view(labels.shape).mean(1) + weight * distortion(delta)
        return losses, {"delta": d_attacked.sum(1) + weight / delta[0].numel() * delta.sign()}

    def init(self, n_tasks: int, generator: Generator) -> Params:
        """Draw δ⁽⁰⁾ of B tasks, (B, C, H, W)."""
        images = self.pools.by_phase["train"][0].images
        start = self.random((n_tasks, *images.shape[1:]), generator, self.dtype)
        return {name: leaf.to(images.device) for name, leaf in start.items()}

    @torch.no_grad()
    def pictures(self, tasks: TaskBatch, params: Params) -> dict[str, Tensor]:
        """See :meth:`lft.tasks.base.TaskFamily.pictures`; shows the query sets."""
        images, labels = tasks.query
        return {
            "images": (images * 255).round().to(torch.uint8),
            "perturbation": params["delta"],
            "labels": labels,
            "clean": self.logits(images).argmax(-1),
            "attacked": self.logits(self.attacked(params, images)).argmax(-1),
        }

    def double(self) -> Self:
        """Copy the family with everything in float64, the victim included."""
        other = super().double()
        other.victim = copy.deepcopy(self.victim).double()
        return other
