"""Which build found what an earlier one had left, and why the other figure is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from build_request_fixture import build_request
from suite_fixture import QUICK

from baselines.paired import metrics
from harness.backends import Build, cached_before, note_built
from harness.backends.eager import Eager
from harness.devices import device
from harness.measuring.trial import Findings, Startup
from harness.paired import pair_duration as pair_length
from harness.probes.startup import startup
from harness.processes.measure import Job, measure
from harness.reasons import Reason, stated
from harness.types import Case, Protocol, Run

RunSuite = Callable[..., Run]


NO_GRAPHS = {"capture_s": Reason("no_cuda_graphs")}


def found(*, cached: bool, keeps: bool, capture_s: float | None = None) -> Findings:
    build = Build(forwards={}, build_s=2.0, cached=cached, keeps=keeps, weights_bytes=1, disk_bytes=lambda: 1)
    parts = Startup(load_s=1.0, build_s=2.0, capture_s=capture_s, first_call_s=3.0)
    trial: Any = SimpleNamespace(build=build, startup=parts)
    return startup(trial)


def test_each_of_two_figures_says_why_it_is_not_there() -> None:
    eager, first, later = (
        found(cached=False, keeps=False),
        found(cached=False, keeps=True),
        found(cached=True, keeps=True),
    )
    assert eager.missing == {"build_cached_s": Reason("keeps_nothing")} | NO_GRAPHS
    assert first.missing == {"build_cached_s": Reason("built_anew")} | NO_GRAPHS
    assert later.missing == {"build_s": Reason("found_built")} | NO_GRAPHS
    assert (first.samples["build_s"], later.samples["build_cached_s"]) == ([2.0], [2.0])


def test_the_capture_of_cuda_graphs_is_a_figure_of_its_own() -> None:
    captured = found(cached=False, keeps=False, capture_s=0.5)
    assert captured.samples == {"load_s": [1.0], "build_s": [2.0], "capture_s": [0.5], "first_call_s": [3.0]}
    assert "capture_s" not in captured.missing


def test_a_backends_capture_and_warnings_reach_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Eager.build

    def capturing(backend: Eager, *given: Any) -> Build:
        return replace(own(backend, *given), capture_s=0.5, warnings=("kind: words",))

    monkeypatch.setattr(Eager, "build", capturing)
    job = Job(
        case=Case(model="planted_ok", image_size=8),
        replicate=1,
        protocol=Protocol(),
        device="cpu",
        folder=tmp_path,
        cache=tmp_path / "cache",
        threads=1,
        only=("startup",),
    )
    row = measure(job, device("cpu"), lambda _phase: None).measurement
    assert row.samples["capture_s"] == [0.5]
    assert stated("kind: words", "kind") in row.warnings


def test_what_starts_a_process_counts_the_capture() -> None:
    assert "capture_s" in pair_length.STARTS
    assert "capture_s" in metrics.STARTS


def test_a_build_that_was_killed_is_no_earlier_build(tmp_path: Path) -> None:
    request = build_request(tmp_path)
    assert not cached_before(request)
    assert not cached_before(request)  # the first was killed on the way
    note_built(request)
    assert cached_before(request)


@pytest.mark.slow
def test_the_second_process_of_a_case_finds_what_the_first_left(run_suite: RunSuite) -> None:
    run = run_suite(
        " - {model: planted_ok, batch_size: 4, backend: [onnxruntime, openvino]}\n",
        QUICK.replace("replicates: 1", "replicates: 2, ratio_interval: null"),
    )
    for backend in ("onnxruntime", "openvino"):
        first, second = sorted((m for m in run.measurements if m.case.backend == backend), key=lambda m: m.replicate)
        assert "build_s" in first.samples
        assert first.missing["build_cached_s"] == Reason("built_anew")
        assert "build_cached_s" in second.samples
        assert second.missing["build_s"] == Reason("found_built")
