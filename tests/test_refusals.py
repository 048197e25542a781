"""What must never pass: each change of a run or its baseline, the verdict or refusal that it gets, and the exit code.

Everything else in the run is fine and four sessions are stored, so any code but 0 is the work of the one change.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from baseline_fixture import (
    FACTS,
    GPU_ENVIRONMENT,
    METRICS,
    A,
    B,
    broken,
    changed,
    measured,
    run_of,
)

from baselines.stored import store
from baselines.stored.compare import compare_stored
from baselines.verdict import exit_code
from baselines.wording import ReasonKind
from harness.reasons import Reason
from harness.types import Measurement, Run

Change = Callable[[Run], Run]


def samples(level: float = 1.0) -> dict[str, list]:
    """Every kind of metric, at one level of speed."""
    return {
        "latency_s": [[0.100 * level] * 12, [0.101 * level] * 12, [0.099 * level] * 12],
        "weights_bytes": [1000.0],
        "fid": [12.0],
        "top1": [1.0] * 40,
        "energy_per_image_j": [[2.0], [2.0], [2.0]],
    }


def good(run_id: str, level: float = 1.0) -> Run:
    rows = [*measured(samples(level), A), *measured(samples(level), B)]
    return run_of(rows, run_id, environment=GPU_ENVIRONMENT, created="2026-01-20T00:00:00+00:00")


def saved(root: Path) -> None:
    for number, level in enumerate((0.99, 1.0, 1.01, 1.0)):
        store.save(good(f"s{number}", level), "a session", root)


def each(run: Run, change: Callable[[Measurement], Measurement]) -> Run:
    return replace(run, measurements=tuple(change(m) if m.case == A else m for m in run.measurements))


def resampled(run: Run, **values: list) -> Run:
    """The run with other samples of row A, the same in each of its processes that has them."""
    return each(run, lambda m: replace(m, samples={**m.samples, **{k: v for k, v in values.items() if k in m.samples}}))


def facts(run: Run, **changes: object) -> Run:
    return each(run, lambda m: replace(m, facts={**m.facts, **changes}))


def without_row(run: Run) -> Run:
    return replace(run, cases=(B,), measurements=tuple(m for m in run.measurements if m.case == B))


def renamed(run: Run) -> Run:
    other = A.with_(seed=7)
    return replace(each(run, lambda m: replace(m, case=other)), cases=(other, B))


def metric(run: Run, name: str, **changes: object) -> Run:
    return replace(run, metrics={**METRICS, name: replace(METRICS[name], **changes)})  # type: ignore[arg-type]


def failing(status: str) -> Change:
    return lambda run: replace(run, measurements=(*broken(status), *(m for m in run.measurements if m.case == B)))


def all_skipped(run: Run) -> Run:
    return replace(run, measurements=(*broken("skipped", "no driver"), *broken("skipped", "no driver", case=B)))


def busy(run: Run) -> Run:
    return each(run, lambda m: replace(m, warnings=(Reason("contended_cpu", {"used": 0.8}),)))


def with_more_rows(run: Run) -> Run:
    """The run with eight rows that the baseline does not know, so that a busy one is a tenth of all."""
    more = [m for i in range(8) for m in measured(samples(), A.with_(batch_size=i + 2))]
    return replace(
        run, measurements=(*run.measurements, *more), cases=(*run.cases, *dict.fromkeys(m.case for m in more))
    )


CONDITIONS = dict(FACTS["quality_conditions"])
CHANGES: dict[str, tuple[Change, str, int]] = {
    "a row of the baseline is gone": (without_row, "missing", 12),
    "a row has another name": (renamed, "missing", 12),
    "other work under the same name": (lambda r: facts(r, work_hash="w2"), "not_comparable", 12),
    "no work identity": (lambda r: facts(r, work_hash=None), "not_comparable", 12),
    "FID of another number of images": (
        lambda r: facts(r, quality_conditions={**CONDITIONS, "items": 50}), "not_comparable", 12,
    ),
    "FID against another reference": (
        lambda r: facts(r, quality_conditions={**CONDITIONS, "reference_hash": "r2"}), "not_comparable", 12,
    ),
    "a time of zero": (lambda r: resampled(r, latency_s=[0.0]), "not_comparable", 12),
    "a time that is no number": (lambda r: resampled(r, latency_s=[float("nan")]), "not_comparable", 12),
    "no time at all": (lambda r: resampled(r, latency_s=[]), "missing", 12),
    "energy of zero": (lambda r: resampled(r, energy_per_image_j=[0.0]), "not_comparable", 12),
    "another unit": (lambda r: metric(r, "latency_s", unit="ms"), "not_comparable", 12),
    "another direction": (lambda r: metric(r, "latency_s", better="higher"), "not_comparable", 12),
    "another summary": (lambda r: metric(r, "latency_s", summary="last"), "not_comparable", 12),
    "fewer items": (lambda r: resampled(r, top1=[1.0] * 39), "not_comparable", 12),
    "an exact value that grew": (lambda r: resampled(r, weights_bytes=[1001.0]), "regressed", 10),
    "equal constant samples, twice as slow": (lambda r: resampled(r, latency_s=[0.2] * 12), "regressed", 10),
    "unequal counts, twice as slow": (lambda r: resampled(r, latency_s=[0.2] * 3), "regressed", 10),
    "answers that are wrong now": (lambda r: resampled(r, top1=[0.0] * 20 + [1.0] * 20), "regressed", 15),
    "images that are worse": (lambda r: resampled(r, fid=[14.0]), "regressed", 15),
    "a crash": (failing("failed"), "regressed", 10),
    "out of memory": (failing("oom"), "regressed", 10),
    "an invalid row": (failing("invalid"), "regressed", 10),
    "an empty run": (lambda r: replace(r, cases=(), measurements=()), "missing", 13),
    "a run that measured none of its rows": (lambda r: replace(r, measurements=()), "missing", 13),
    "all rows skipped": (all_skipped, "missing", 13),
    "a time without end": (lambda r: resampled(r, latency_s=[float("inf")]), "not_comparable", 12),
    "FID that is no number": (lambda r: resampled(r, fid=[float("nan")]), "not_comparable", 12),
    "an item that is no number": (lambda r: resampled(r, top1=[float("nan")] * 40), "not_comparable", 12),
    "no FID any more": (lambda r: resampled(r, fid=[]), "missing", 12),
    "half of the rows on a busy machine": (busy, "inconclusive", 14),
    "one row of many on a busy machine": (lambda r: busy(with_more_rows(r)), "inconclusive", 14),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_the_change_gets_its_verdict_and_never_passes(name: str, tmp_path: Path) -> None:
    change, outcome, code = CHANGES[name]
    saved(tmp_path)
    found = compare_stored(change(good("now")), tmp_path)
    assert not found.refused
    assert outcome in {v.outcome for v in found.verdicts if v.case_id != B.id or name.startswith("another")}
    assert exit_code(found) == code


def resealed(root: Path, change: Callable[[list[dict], list[dict]], None]) -> None:
    """Every stored session with its cases and measurements changed, and a hash that fits them."""
    for path in root.glob("*/*/s*.json"):
        document = json.loads(path.read_text())
        change(document["run"]["cases"], document["run"]["measurements"])
        path.write_text(json.dumps({**document, "hash": store.seal(document)}))


def take_out(cases: list[dict], measurements: list[dict]) -> None:
    cases[:] = [c for c in cases if c["model"] != "a"]
    measurements[:] = [m for m in measurements if m["case"]["model"] != "a"]


def rename(cases: list[dict], measurements: list[dict]) -> None:
    for case in [c for c in (*cases, *(m["case"] for m in measurements)) if c["model"] == "a"]:
        case["model"] = "a2"


@pytest.mark.parametrize(("change", "outcomes"), [(take_out, {"new"}), (rename, {"new", "missing"})])
@pytest.mark.parametrize("level", [1.0, 2.0])
def test_a_row_that_left_the_baseline_is_no_pass_even_with_a_fitting_hash(
    change: Callable[[list[dict], list[dict]], None], outcomes: set[str], level: float, tmp_path: Path
) -> None:
    """Twice as slow or not: what nobody can compare is red."""
    saved(tmp_path)
    resealed(tmp_path, change)
    run = resampled(good("now"), latency_s=[0.1 * level] * 12)
    found = compare_stored(run, tmp_path)
    assert not found.refused
    assert {v.outcome for v in found.verdicts if v.metric == "row"} == outcomes
    assert exit_code(found) == 12
    allowed = compare_stored(run, tmp_path, allow_new=True)
    assert exit_code(allowed) == (0 if outcomes == {"new"} else 12)


def test_without_a_change_it_passes(tmp_path: Path) -> None:
    saved(tmp_path)
    found = compare_stored(good("now"), tmp_path)
    assert {v.outcome for v in found.verdicts} == {"unchanged"}
    assert exit_code(found) == 0


def gpu(**fields: object) -> Change:
    return lambda run: replace(run, environment={**GPU_ENVIRONMENT, "gpus": [{**GPU_ENVIRONMENT["gpus"][0], **fields}]})


REFUSED: dict[str, tuple[Change, str]] = {
    "another GPU": (gpu(name="H200"), "no baseline"),
    "another power limit": (gpu(power_limit_w=350.0), "power limit"),
    "MIG": (gpu(mig=True), "MIG"),
    "another CPU": (lambda r: replace(r, environment=changed(GPU_ENVIRONMENT, ("cpu", "model"), "AMD")), "no baseline"),
    "another torch": (
        lambda r: replace(r, environment=changed(GPU_ENVIRONMENT, ("versions", "torch"), "2.14.1")), "torch is 2.14.1",
    ),
    "more threads": (lambda r: replace(r, environment={**GPU_ENVIRONMENT, "threads": 8}), "threads is 8"),
    "another warm-up": (lambda r: replace(r, protocol=replace(r.protocol, warmup_min_s=9.0)), "warmup_min_s"),
    "a baseline of long ago": (lambda r: replace(r, created="2027-12-01T00:00:00+00:00"), "stale"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compared_is_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    change, reason = REFUSED[name]
    saved(tmp_path)
    found = compare_stored(change(good("now")), tmp_path)
    assert reason in " ".join(map(str, found.refused))
    assert found.verdicts == ()
    assert exit_code(found) == 12


def test_an_edited_session_decides_nothing(tmp_path: Path) -> None:
    saved(tmp_path)
    path = next(tmp_path.glob("*/*/s0.json"))
    document = json.loads(path.read_text())
    document["run"]["measurements"][0]["samples"]["latency_s"][0] = 0.5
    path.write_text(json.dumps(document))
    found = compare_stored(good("now"), tmp_path)
    assert "edited" in str(found.refused[0])
    assert exit_code(found) == 12


def test_times_of_a_contended_session_do_not_count(tmp_path: Path) -> None:
    """Forced into the store, it says what is exact and never what is slow: half speed there is no permission here."""
    slow = busy(good("slow", 2.0))
    with pytest.raises(store.BaselineRefused, match="contended"):
        store.save(slow, "the only machine", tmp_path)
    store.save(slow, "the only machine", tmp_path, force=True)
    found = compare_stored(good("now", 1.5), tmp_path)
    told = {v.metric: v for v in found.verdicts if v.case_id == A.id}
    assert told["latency_s"].outcome == "not_comparable"
    assert told["latency_s"].reason.kind == ReasonKind.CONTENDED_SESSIONS
    assert told["weights_bytes"].outcome == "unchanged"
    assert exit_code(found) == 12


def test_a_stale_session_counts_where_it_is_asked_for(tmp_path: Path) -> None:
    saved(tmp_path)
    late = replace(good("now"), created="2027-12-01T00:00:00+00:00")
    assert exit_code(compare_stored(late, tmp_path, max_age_days=10_000)) == 0
