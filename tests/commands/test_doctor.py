"""lft doctor: what is broken is said with what to do, and the self-test finds a wrong kernel."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from lft.cli import main
from lft.commands import doctor
from lft.errors import UsageError
from lft.meta.estimators import Estimate, meta_gradient


def test_the_kernels_give_what_pytorch_gives_and_were_used() -> None:
    """Sums in another order differ by float32's rounding, 6e-8, times a few; equal ones would mean
    that both went through PyTorch."""
    if not torch.backends.cpu.get_cpu_capability():
        pytest.skip("no kernels here")
    assert 0 < doctor.deviation() < doctor.DEVIATION
    assert doctor.kernels().state == "ok"


def test_a_kernel_that_is_wrong_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a thousandth, in one weight."""

    def wrong(learner: object, *arguments: object) -> Estimate:
        estimate = meta_gradient(learner, *arguments)  # type: ignore[arg-type]
        if learner.kernel == "fused":  # type: ignore[attr-defined]
            largest = max(estimate.grads.values(), key=lambda leaf: float(leaf.abs().max()))
            largest *= 1.001
        return estimate

    monkeypatch.setattr(doctor, "meta_gradient", wrong)
    found = doctor.kernels()
    assert found.state == "BROKEN"
    assert "set kernel: torch" in found.todo


def test_kernels_that_cannot_be_had_are_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> bool:
        raise UsageError("they need a C++20 compiler")

    monkeypatch.setattr("lft.kernels.build.chosen", refuse)
    found = doctor.kernels()
    assert (found.state, "they need a C++20 compiler" in found.text) == ("note", True)


@pytest.mark.parametrize(
    ("found", "state", "todo"),
    [
        (doctor.snakemake(""), "BROKEN", "pip install 'lft[workflow]'"),
        (doctor.snakemake("8.30.0"), "BROKEN", "pip install 'lft[workflow]'"),
        (doctor.snakemake("10.1"), "ok", ""),
        (doctor.report({"pandas": "3.0", "jinja2": ""}), "BROKEN", "pip install 'lft[report]'"),
        (doctor.memory(16.0, 1.0), "note", "--cores 1"),
        (doctor.memory(2.0, None), "note", "--cores 1"),
        (doctor.memory(16.0, None), "ok", ""),
        (doctor.disk(0.1), "note", "make room"),
        (doctor.cache(Path("/proc/lft")), "note", "XDG_CACHE_HOME"),
    ],
)
def test_what_is_wrong_says_what_to_do(found: doctor.Finding, state: str, todo: str) -> None:
    if found.name == "cache" and found.state == "ok":
        pytest.skip("root writes everywhere")
    assert found.state == state
    assert todo in found.todo
    assert str(found).startswith(state)
    assert len(str(found).splitlines()) == 1


def test_a_system_that_does_not_say_how_much_memory_is_free_is_examined(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As macOS, which has neither the file nor the name SC_AVPHYS_PAGES."""
    asked = os.sysconf

    def sysconf(name: str) -> int:
        if name not in ("SC_PAGE_SIZE", "SC_PHYS_PAGES"):
            raise ValueError("unrecognized configuration name")
        return asked(name)

    monkeypatch.setattr("os.sysconf", sysconf)
    monkeypatch.setattr(doctor, "MEMINFO", tmp_path / "missing", raising=False)
    for check in ("kernels", "_compiler"):  # slow
        monkeypatch.setattr(doctor, check, lambda: doctor.Finding("skipped", ""))
    (found,) = (finding for finding in doctor.examine() if finding.name == "memory")
    total = asked("SC_PAGE_SIZE") * asked("SC_PHYS_PAGES") / 1e9
    assert found.text == f"{total:.1f} GB"


@pytest.mark.parametrize(("state", "status"), [("ok", 0), ("note", 0), ("BROKEN", 1)])
def test_the_exit_status_tells_what_is_broken(
    state: doctor.State,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    finding = doctor.Finding("thing", "as it is", "mend it", state)
    monkeypatch.setattr(doctor, "examine", lambda: iter([finding]))
    monkeypatch.setattr(sys, "argv", ["lft", "doctor"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code or 0) == status
    output = capsys.readouterr().out
    assert "thing       as it is; mend it" in output
    assert ("Broken: thing" in output) == (state == "BROKEN")
