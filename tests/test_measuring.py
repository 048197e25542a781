"""The measuring core with exact numbers and no clock: timer, sampling, statistics, units, the call counter."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from harness import probes, stats, units
from harness.derived import DERIVED, summarise
from harness.derived_metrics import METRICS, needed_for
from harness.measuring import sampling
from harness.measuring.sampling import MIN_TIMED_S, sample
from harness.measuring.trial import Counter, Mismatch, digest, output_fault
from harness.measuring.turns import Interleaving
from harness.numerics import tolerance
from harness.probes import fidelity, latency
from harness.reasons import Reason
from harness.registry import PRECISIONS
from harness.timing import FakeClock, Timer
from harness.types import IDENTICAL, Case, Component, Metric, Protocol, Workload

PROTOCOL = Protocol(
    warmup_min_iterations=3,
    warmup_min_s=0.0,
    warmup_max_s=1.0,
    min_samples=4,
    min_sample_time_s=0.0,
    max_sample_time_s=0.5,
)


def test_a_timer_divides_by_its_repetitions_and_synchronises_around_them() -> None:
    synced: list[int] = []
    timer = Timer(lambda: synced.append(1), FakeClock([0.030]))
    calls: list[int] = []
    assert timer.seconds(lambda: calls.append(1), repeat=3) == pytest.approx(0.010)
    assert (len(calls), len(synced)) == (3, 2)


def test_warm_up_ends_when_two_windows_agree_and_is_kept_apart() -> None:
    values = iter([0.5, 0.2, 0.1, 0.02, *[0.010] * 100])
    found = sample(lambda loops: next(values), PROTOCOL)
    assert found.warmup[:4] == [0.5, 0.2, 0.1, 0.02]
    assert found.steady == [0.010] * 4
    assert found.unsteady is None


def test_a_warm_up_that_never_settles_is_capped_and_flagged() -> None:
    growing = iter(0.01 * 1.3**i for i in range(100))
    found = sample(lambda loops: next(growing), PROTOCOL)
    assert "unsteady: the latency was not steady when the warm-up ended at 1 s" in str(found.unsteady)


def test_sampling_stops_at_the_cap_but_not_before_three_samples() -> None:
    found = sample(lambda loops: 0.4, PROTOCOL)
    assert len(found.steady) == 3


def test_sampling_goes_on_until_the_median_is_known() -> None:
    rng = np.random.default_rng(0)
    asked = Protocol(
        warmup_min_s=0.0, min_samples=10, min_sample_time_s=0.0, max_sample_time_s=1000.0, target_interval=0.02
    )
    calm = [0.01] * 5  # as many as the warm-up takes

    def noise(spread: float) -> sampling.Sampled:
        warmup = iter(calm)
        return sampling.sample(lambda _loops: next(warmup, None) or float(rng.normal(0.01, spread * 0.01)), asked)

    few, many = noise(0.001), noise(0.20)
    assert len(few.steady) < len(many.steady) < 20_000
    assert many.interval is not None
    assert many.interval <= 0.02


def test_sampling_stops_at_the_cap_and_says_how_well_it_knows() -> None:
    values = iter([0.01] * 5 + np.random.default_rng(2).choice([0.01, 0.02], 500).tolist())
    asked = Protocol(
        warmup_min_s=0.0, min_samples=4, min_sample_time_s=0.0, max_sample_time_s=0.3, target_interval=1e-6
    )
    found = sampling.sample(lambda _loops: next(values), asked)
    assert sum(found.steady) == pytest.approx(0.3, abs=0.03)
    assert found.interval is not None
    assert found.interval > 1e-6


def test_the_interval_of_a_median_counts_alike_neighbours_once() -> None:
    """Values that stay the same for ten samples carry a tenth of the information."""
    rng = np.random.default_rng(1)
    independent = rng.normal(1.0, 0.1, 400)
    alike = np.repeat(rng.normal(1.0, 0.1, 40), 10)
    narrow, wide = sampling.interval(independent.tolist()), sampling.interval(alike.tolist())
    assert narrow is not None
    assert wide is not None
    assert wide > 2 * narrow
    assert sampling.interval([1.0, 1.0, 1.0]) is None
    assert sampling.interval([1.0] * 4) == 0.0


def test_a_very_short_step_is_timed_in_loops() -> None:
    asked: list[int] = []
    sample(lambda loops: asked.append(loops) or MIN_TIMED_S / 20, PROTOCOL)
    assert asked[-1] == 20


def test_every_derived_metric_that_is_listed_is_computed() -> None:
    assert [derived.metric for derived in DERIVED] == [*METRICS]


def test_harrell_davis_agrees_with_scipy_and_percentiles_need_samples() -> None:
    from scipy.stats.mstats import hdquantiles

    values = np.random.default_rng(0).lognormal(size=200)
    assert stats.percentile_of(values, 95) == pytest.approx(float(hdquantiles(values, [0.95])[0]))
    assert [needed_for(p) for p in (90, 95, 99)] == [10, 20, 100]
    p99 = next(d for d in DERIVED if d.metric.name == "latency_p99_s")
    assert p99.estimate([[0.1] * 99], 1).reason == Reason("too_few_samples", {"needed": 100, "count": 99})
    assert str(p99.estimate([[0.1] * 99], 1).reason) == "the metric needs 100 samples, and the row has 99"
    assert p99.estimate([[0.1] * 100], 1).value == pytest.approx(0.1)


def test_throughput_is_items_over_total_time() -> None:
    throughput = next(d for d in DERIVED if d.metric.name == "throughput")
    assert throughput.estimate([[0.1, 0.3]], 8).value == pytest.approx(8 * 2 / 0.4)


def test_the_interval_knows_that_processes_differ() -> None:
    together = stats.interval([[1.0, 1.01] * 20], lambda a: np.median(a, axis=-1))
    apart = stats.interval([[1.0] * 20, [1.2] * 20, [1.1] * 20], lambda a: np.median(a, axis=-1))
    assert together is not None
    assert apart is not None
    assert apart[1] - apart[0] > 5 * (together[1] - together[0])
    assert stats.interval([[1.0]], lambda a: a[..., 0]) is None


def test_intervals_with_two_processes_cover_the_truth() -> None:
    """24 rows, 2 processes, between-process sd 4.5 %, within 2 %: the pooled interval holds what it promises."""
    rng = np.random.default_rng(0)
    alone = pooled = total = 0
    for _ in range(25):
        rows = [
            [np.exp(rng.normal(0, 0.045) + rng.normal(0, 0.02, 10)).tolist() for _process in range(2)]
            for _row in range(24)
        ]
        spread = stats.between_processes(rows)
        assert spread is not None
        assert spread.degrees == 24
        for groups in rows:
            value = float(np.median(np.concatenate(groups)))
            bounds = stats.interval(groups, lambda a: np.median(a, axis=-1))
            assert bounds is not None
            low, high = stats.widened(value, bounds, spread, 2)
            total += 1
            alone += bounds[0] <= 1.0 <= bounds[1]
            pooled += low <= 1.0 <= high
    assert alone / total < 0.75
    assert pooled / total > 0.93


def test_wilson_interval_of_a_share() -> None:
    low, high = stats.wilson(95, 100)
    assert (round(low, 4), round(high, 4)) == (0.8882, 0.9785)
    metric = Metric(
        name="t", unit="share", label="", better="higher", kind="quality_item", description="", summary="mean"
    )
    found = summarise(metric, [[1.0] * 95 + [0.0] * 5])
    assert (found.value, found.low, found.high) == (0.95, low, high)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00213, "s", "2.13 ms"),
        (75.0, "s", "75.0 s"),
        (3.2e-7, "s", "320 ns"),
        (0.0, "B", "0 B"),
        (3 * 2**30, "B", "3.00 GiB"),
        (0.991, "share", "99.1 %"),
        (859_520_964.0, "count", "860 M"),
        (21.0, "count", "21"),
        (None, "s", "–"),
        (float("nan"), "s", "–"),
        (0.5, "J", "500 mJ"),
        (1234.5, "image/s", "1234 image/s"),
    ],
)
def test_values_for_people(value: float | None, unit: str, text: str) -> None:
    assert units.format_value(value, unit) == text


@pytest.mark.parametrize(
    ("part", "form", "text"), [(0.01254, "+.1", "+1.3 %"), (-0.3, ".0", "-30 %"), (0.00125, ".2", "0.12 %")]
)
def test_a_share_has_a_space_before_the_percent_sign(part: float, form: str, text: str) -> None:
    assert units.percent(part, form) == text


def test_a_count_has_the_plural_of_its_noun() -> None:
    assert [units.counted(n, noun) for n, noun in ((1, "row"), (0, "row"), (1, "process"), (2, "process"))] == [
        "1 row", "0 rows", "1 process", "2 processes",
    ]  # fmt: skip


def _component(calls: int = 1) -> Component:
    return Component(name="net", module=torch.nn.Identity(), inputs=(torch.zeros(2, 3),), calls=calls)


def test_the_counter_finds_other_steps_and_other_shapes() -> None:
    counter = Counter((_component(calls=2),), {"net": lambda x: x})
    counter.iterations = 1
    counter.forwards["net"](torch.zeros(2, 3))
    assert str(counter.mismatch()) == "net was called 1 times in 1 iterations instead of 2 times"
    counter.forwards["net"](torch.zeros(2, 3))
    assert counter.mismatch() is None
    with pytest.raises(Mismatch, match=r"net was called with shapes \[\(1, 3\)\] instead of \[\(2, 3\)\]"):
        counter.forwards["net"](torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("output", "fault"),
    [
        (torch.eye(2), None),
        (torch.zeros(2, 2), "2 of 2 outputs are constant"),
        (torch.tensor([[1.0, float("inf")], [0.0, 1.0]]), "1 values that are NaN or infinite"),
        (torch.eye(3), "shape (3, 3) instead of (2, 2)"),
    ],
)
def test_faults_of_an_output(output: torch.Tensor, fault: str | None) -> None:
    workload = Workload(
        components=(), iterate=lambda f, b: b, batch=None, output_shape=(2, 2), identity={}, output_kind="logits"
    )
    found = output_fault(output, workload)
    assert (found is None) if fault is None else (fault in str(found))


IMAGES, LOGITS, FEATURES = "images", "logits", "features"


@pytest.mark.parametrize(
    ("output", "kind", "fault"),
    [
        (torch.tensor([[0.3], [0.3]]), LOGITS, None),  # one logit an item
        (torch.tensor([0.3, 0.4]), LOGITS, None),
        (torch.tensor([[float("nan")], [0.3]]), LOGITS, "1 values that are NaN"),
        (torch.tensor([3, 3]), LOGITS, None),  # a class an item
        (torch.zeros(2, 4, 4, dtype=torch.int64), LOGITS, None),  # a map without an object
        (torch.zeros(2, 4, 4, dtype=torch.bool), LOGITS, None),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), IMAGES, "2 of 2 outputs are constant"),
        (torch.zeros(2, 3, 4, 4), IMAGES, "2 of 2 outputs are constant"),
        (torch.full((2, 3, 4, 4), 0.7), LOGITS, "2 of 2 outputs are constant"),  # a map of floating values
        (torch.rand(2, 5, 192), FEATURES, None),
        (torch.rand(2, 192) * 1e-8, FEATURES, None),  # small, and not constant
        (torch.rand(2, 192) * 1e-8 + 1, FEATURES, "2 of 2 outputs are constant"),  # rounding
        (torch.rand(2, 192).bfloat16(), FEATURES, None),
        (torch.zeros(2, 0), FEATURES, "the output is empty"),
    ],
)
def test_faults_of_outputs_of_every_kind(output: torch.Tensor, kind: Any, fault: str | None) -> None:
    workload = Workload(
        components=(),
        iterate=lambda f, b: b,
        batch=None,
        output_shape=tuple(output.shape),
        identity={},
        output_kind=kind,
    )
    found = output_fault(output, workload)
    assert (found is None) if fault is None else (fault in str(found))


def test_a_digest_is_of_the_bytes_whatever_the_dtype() -> None:
    values = torch.tensor([[0.0, 2.0], [3.0, 4.0]])
    for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
        assert digest(values.to(dtype)) == digest(values.to(dtype).clone())
        assert digest(values.to(dtype)) != digest(values.flip(0).to(dtype))
    assert digest(values) == hashlib.sha256(values.numpy().tobytes()).hexdigest()[:16]


def test_labels_name_every_axis() -> None:
    case = Case(model="m", image_size=32, scheduler="ddim", num_steps=5, guidance_scale=2.0)
    assert case.label == "m (random) · eager · fp32 · batch 1 · 32 px · ddim · 5 steps · guidance 2"
    assert case.with_(prompt="a <b>", seed=7).label.endswith('"a <b>" · seed 7')


def test_the_cosine_of_images_tells_a_wrong_picture_from_a_right_one() -> None:
    """Bright images have a raw cosine of 0.9 whatever they show; less the mean, a wrong one falls below any floor."""
    generator = torch.Generator().manual_seed(0)
    right = torch.rand(4, 3, 8, 8, generator=generator) * 0.3 + 0.6
    wrong = {
        "mirrored": right.flip(-1),
        "another order": right.flip(0),
        "another seed": torch.rand(4, 3, 8, 8, generator=generator) * 0.3 + 0.6,
    }
    floor = min(tolerance.tolerance(name, "images").cosine_floor for name in PRECISIONS)
    for name, images in wrong.items():
        raw = torch.nn.functional.cosine_similarity(images.flatten(), right.flatten(), dim=0)
        samples, _ = fidelity.closeness(images, right, "images")
        assert raw > 0.95, name
        assert max(samples["cosine_similarity"]) < floor, name
    samples, missing = fidelity.closeness(right.clone(), right, "images")
    assert samples["cosine_similarity"] == pytest.approx([1.0] * 4)
    assert missing["psnr_db"] == IDENTICAL
    nudged, _ = fidelity.closeness(right + 0.01, right, "images")
    assert nudged["psnr_db"] == pytest.approx([40.0], abs=0.01)


def test_a_process_counts_as_one_however_many_samples_it_took() -> None:
    """Sampling stops at a target: an unsettled process has many samples, and must not outvote the others by them."""
    metric = Metric(name="latency_s", unit="s", label="", better="lower", kind="noisy", description="")
    groups = [[0.010] * 20, [0.010] * 20, [0.015] * 160]
    assert summarise(metric, groups).value == pytest.approx(0.010)
    found = {d.metric.name: d.estimate(groups, 8).value for d in DERIVED}
    assert found["throughput"] == pytest.approx(8 / ((0.010 + 0.010 + 0.015) / 3))
    mixed = [list(np.linspace(0.01, 0.02, 50)), list(np.linspace(0.01, 0.02, 1000))]
    assert stats.pooled_percentile(mixed, 90) == pytest.approx(0.019, rel=0.01)


def test_probes_that_are_asked_for_by_name_run_in_any_process() -> None:
    assert [p.name for p in probes.in_order(2, ("memory",))] == ["memory"]
    assert "memory" in {p.name for p in probes.in_order(0)}
    assert "memory" not in {p.name for p in probes.in_order(1)}


@pytest.mark.parametrize(("device", "seconds"), [("cpu", 2e-4), ("cuda", 4e-3)])
def test_a_sample_is_longer_on_a_gpu_where_its_end_is_a_synchronisation(device: str, seconds: float) -> None:
    shortest_s = sampling.shortest_s(device, PROTOCOL)
    assert shortest_s == seconds
    alone = sampling.sample(lambda _loops: 1e-4, PROTOCOL, shortest_s=shortest_s)
    turns: Any = SimpleNamespace(pass_on=lambda: None)
    counts = Interleaving(warmups=3, turns=2, samples=4, discarded=1)
    paired = sampling.sample_in_turns(lambda _loops: 1e-4, counts, turns, shortest_s=shortest_s)
    assert alone.loops == paired.loops == round(seconds / 1e-4)
    assert sampling.sample(lambda _loops: seconds, PROTOCOL, shortest_s=shortest_s).loops == 1
    assert sampling.shortest_s(device, replace(PROTOCOL, cold_cache=True)) == 0.0
    timer = SimpleNamespace(seconds=lambda _step, _loops: 1e-4, last_device_s=None)
    watch: Any = SimpleNamespace(after_sample=lambda _seconds: None)
    trial: Any = SimpleNamespace(
        timer=timer, step=None, device=SimpleNamespace(name=device), protocol=PROTOCOL, turns=None, interleaving=None
    )
    assert latency._sampled(trial, [], watch, lambda: None, None).loops == alone.loops
    trial.turns, trial.interleaving = turns, counts
    assert latency._sampled(trial, [], watch, lambda: None, None).loops == alone.loops
