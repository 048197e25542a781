"""The detector is measured: rules of other tools on known cases, models of noise, recorded blocks, the table."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from baselines.detector import criterion, ranks
from baselines.detector.drawn import LATENCY, TAIL_LATENCY, stretches
from baselines.detector.noise import MODELS, NoiseModel, recorded
from baselines.detector.ours import Ours
from baselines.detector.recorded import Recording, RecordingRefused, from_run, joined, load, save
from baselines.detector.rules import RULES, pyperf_critical, repetitions
from baselines.detector.table import OURS, WHOLE_RUNS, by_row, evaluate, markdown, summary
from harness import paired
from harness.types import Case, Measurement, Protocol

RULE_NAMES = list(RULES)
SMALL = NoiseModel(description="three rows", rows=3, samples=6)


def noisy(count: int, centre: float = 1.0, sd: float = 0.01, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, sd, count)


def processes(rule: str, head_factor: float = 1.0, samples: int = 45) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As many processes as the tool takes, no differences between processes."""
    found = RULES[rule]
    base = [noisy(samples, seed=i) for i in range(found.base_processes)]
    head = [noisy(samples, seed=1000 + i) * head_factor for i in range(found.head_processes)]
    return base, head


# Rules of other tools.


@pytest.mark.parametrize("name", RULE_NAMES)
def test_a_shift_of_20_percent_is_seen_by_every_tool(name: str) -> None:
    assert RULES[name].decide(*processes(name, 1.2)) == "worse"


@pytest.mark.parametrize("name", RULE_NAMES)
def test_only_two_sided_tools_see_an_improvement(name: str) -> None:
    assert RULES[name].decide(*processes(name, 1 / 1.2)) == ("same" if RULES[name].one_sided else "better")


@pytest.mark.parametrize("name", RULE_NAMES)
def test_the_same_samples_in_both_arms_are_the_same(name: str) -> None:
    base, _ = processes(name)
    assert RULES[name].decide(base, base) == "same"


@pytest.mark.parametrize("name", RULE_NAMES)
def test_equal_constant_samples_are_the_same(name: str) -> None:
    rule = RULES[name]
    assert rule.decide([np.ones(20)] * rule.base_processes, [np.ones(20)] * rule.head_processes) == "same"


BLIND_WITHOUT_NOISE = {"nvbench legacy", "bencher t 0.99"}


@pytest.mark.parametrize("name", RULE_NAMES)
def test_tools_that_divide_by_the_noise_are_blind_without_any(name: str) -> None:
    rule = RULES[name]
    found = rule.decide([np.ones(20)] * rule.base_processes, [np.full(20, 1.25)] * rule.head_processes)
    assert found == ("same" if name in BLIND_WITHOUT_NOISE else "worse")


def test_pytest_benchmark_compares_means_with_5_percent() -> None:
    decide = RULES["pytest-benchmark mean:5%"].decide
    assert decide([np.array([1.0, 1.0])], [np.array([1.0, 1.099])]) == "same"
    assert decide([np.array([1.0, 1.0])], [np.array([1.0, 1.101])]) == "worse"
    assert decide([np.zeros(2)], [np.zeros(2)]) == "worse"  # a mean of 0 counts as infinitely much grown


def test_asv_needs_both_the_factor_and_the_test() -> None:
    decide = RULES["asv continuous"].decide
    base = [noisy(5, seed=1), noisy(5, seed=2)]
    assert decide(base, [1.08 * p for p in base]) == "same"  # significant, below the factor
    assert decide(base, [1.15 * p for p in base]) == "worse"
    wide = [np.array([1.0, 2.0, 3.0, 4.0, 5.0])] * 2
    assert decide(wide, [1.2 * p for p in wide]) == "same"  # beyond the factor, not significant


def test_asv_uses_intervals_where_few_samples_cannot_reach_its_p() -> None:
    assert ranks.smallest_p(5, 5) == 1 / 252  # above 0.002
    decide = RULES["asv continuous"].decide
    tight = np.array([0.99, 0.995, 1.0, 1.005, 1.01])
    assert decide([tight], [2 * tight]) == "worse"
    assert decide([tight[:2]], [1.15 * tight[:2]]) == "same"  # two samples: the interval is far wider than that


def test_pyperf_calls_what_it_cannot_test_significant() -> None:
    decide = RULES["pyperf compare_to"].decide
    base = [np.array([1.00, 1.02, 0.98])]
    assert decide(base, [np.array([1.001, 1.021, 0.981])]) == "same"
    assert decide(base, [np.array([1.00, 1.002])]) == "worse"  # unequal counts
    assert decide([np.array([1.0])], [np.array([1.0001])]) == "worse"  # one value each
    assert decide([np.ones(3)], [np.full(3, 1.0001)]) == "worse"  # no variance


def test_pyperf_has_a_table_of_t() -> None:
    assert [pyperf_critical(d) for d in (1, 10, 30, 31, 39, 40, 118, 200)] == [
        12.706,
        2.228,
        2.042,
        2.042,
        2.042,
        2.021,
        1.984,
        1.960,
    ]


def test_google_benchmark_has_no_smallest_difference() -> None:
    decide = RULES["google/benchmark U test"].decide
    base = np.linspace(1.0, 1.0008, 9)
    assert decide([base], [base + 0.001]) == "worse"  # 0.1 %
    assert decide([base], [base + 0.0002]) == "same"
    assert decide([np.array([1.0])], [np.array([2.0])]) == "same"  # one repetition: it says nothing


def test_criterion_ignores_changes_below_its_noise_threshold() -> None:
    base = noisy(100, sd=0.001)
    decide = RULES["criterion.rs"].decide
    assert decide([base], [1.008 * base]) == "same"
    assert criterion.t_test_p(1.008 * base, base) < 0.05
    assert decide([base], [1.02 * base]) == "worse"


def test_criterions_bootstrap_agrees_with_welchs_test() -> None:
    first, second = noisy(60, 1.003, seed=3), noisy(40, 1.0, seed=4)
    expected = scipy_stats.ttest_ind(first, second, equal_var=False).pvalue
    assert criterion.t_test_p(first, second) == pytest.approx(expected, abs=0.02)
    low, high = criterion.change_interval(first, second, 0.95)
    assert low < first.mean() / second.mean() - 1 < high


def test_nvbench_legacy_takes_the_smaller_noise() -> None:
    decide = RULES["nvbench legacy"].decide
    quiet, wild = np.tile([0.99, 1.01], 10), np.tile([0.7, 1.34], 10)  # the second one's mean is 1.02
    assert decide([quiet], [wild]) == "worse"
    assert decide([wild], [wild * 1.02]) == "same"
    assert decide([quiet[:4]], [2 * quiet[:4]]) == "same"  # below five samples the noise is infinite


def test_nvbench_robust_wants_a_gap_between_minimum_and_third_quartile() -> None:
    decide = RULES["nvbench robust"].decide
    base = np.array([1.00, 1.01, 1.02, 1.03, 9.0])  # [1.00, 1.03]: the outlier is outside
    assert decide([base], [base - 1.00 + 1.036]) == "worse"  # 0.58 % above 1.03
    assert decide([base], [base - 1.00 + 1.034]) == "same"  # 0.39 %
    assert decide([base - 1.00 + 1.036], [base]) == "better"


def test_bencher_bounds_the_next_value_by_its_history() -> None:
    decide = RULES["bencher t 0.99"].decide
    history = [np.array([v]) for v in (0.98, 0.99, 1.00, 1.01, 1.02)]
    bound = 1.0 + 3.7469 * 0.0158114 * math.sqrt(1.2)  # t(0.99, 4), sd, one new value
    assert decide(history, [np.array([bound - 0.001])]) == "same"
    assert decide(history, [np.array([bound + 0.001])]) == "worse"
    assert decide(history[:1], [np.array([9.0])]) == "same"  # one earlier value: no bound


def test_repetitions_are_means_of_stretches() -> None:
    found = repetitions([np.arange(7.0), np.array([10.0, 20.0])], 3)
    assert found.tolist() == [0.5, 2.5, 4.5, 10.0, 20.0]


@pytest.mark.parametrize(("m", "n", "step"), [(5, 7, 0.0), (12, 9, 0.0), (30, 25, 0.0), (9, 9, 0.5), (6, 20, 0.5)])
def test_u_test_is_scipys(m: int, n: int, step: float) -> None:
    first, second = noisy(m, 0.0, 1.0, seed=m), noisy(n, 0.6, 1.0, seed=100 + n)
    if step:
        first, second = np.round(first / step), np.round(second / step)
    expected = scipy_stats.mannwhitneyu(first, second, alternative="two-sided").pvalue
    assert ranks.mann_whitney_p(first, second) == pytest.approx(expected, rel=1e-9)


def test_asvs_u_test_breaks_ties_against_significance() -> None:
    first, second = np.array([1.0, 2.0, 3.0]), np.array([4.0, 5.0, 6.0])
    assert ranks.mann_whitney_conservative(first, second) == pytest.approx(2 / 20)
    tied = np.array([3.0, 5.0, 6.0])
    assert ranks.mann_whitney_conservative(first, tied) == pytest.approx(4 / 20)  # the tie counts against it


# Models of noise.


def test_shared_noise_has_its_stated_moments() -> None:
    model = replace(MODELS["shared"], contended=0.0, drift=0.0, rows=4)
    seconds = np.log(model.seconds(np.random.default_rng(1), 3000))
    assert (seconds - seconds.mean(axis=-1, keepdims=True)).std(ddof=1) == pytest.approx(0.03, rel=0.03)
    means = seconds.mean(axis=-1)
    assert means.std(axis=(1, 2)) == pytest.approx(math.hypot(0.025, 0.03 / 5), rel=0.04)
    own = means - means.mean(axis=(1, 2), keepdims=True)
    assert np.corrcoef(own[0].ravel(), own[1].ravel())[0, 1] == pytest.approx(0.5, abs=0.06)


def test_contended_processes_are_as_many_and_as_slow_as_stated() -> None:
    model = replace(MODELS["shared"], process=0.0, drift=0.0, iteration=0.0, rows=1)
    slowdown = model.seconds(np.random.default_rng(2), 4000)[0, :, :, 0] / model.latency_s()[0] - 1
    assert (slowdown > 1e-9).mean() == pytest.approx(0.05, abs=0.008)
    assert 0.05 <= slowdown[slowdown > 1e-9].min() < 0.07
    assert 0.57 < slowdown.max() <= 0.60


def test_a_layout_is_drawn_by_each_process() -> None:
    model = replace(MODELS["layout"], process=0.0, iteration=0.0, rows=2)
    offsets = np.log(model.seconds(np.random.default_rng(3), 400)[..., 0] / model.latency_s()[:, None, None])
    values, counts = np.unique(offsets.round(6), return_counts=True)
    assert values.tolist() == [0.0, 0.015, 0.03, 0.06]
    assert counts / offsets.size == pytest.approx(0.25, abs=0.05)


def test_a_server_offset_lasts_eight_pairs() -> None:
    model = replace(MODELS["server"], process=0.0, iteration=0.0, rows=2)
    shifts = model.draw(np.random.default_rng(4), 800).shifts[("row 00", LATENCY)].reshape(100, 8)
    assert np.ptp(shifts, axis=1).max() < 1e-12
    assert shifts[:, 0].std() == pytest.approx(0.005 * math.sqrt(2), rel=0.2)


def test_drift_moves_both_arms_of_a_pair_alike() -> None:
    model = replace(MODELS["drift"], process=0.0, iteration=0.0, rows=1)
    log = np.log(model.seconds(np.random.default_rng(5), 20_000)[0, :, :, 0])
    assert log.std() == pytest.approx(0.05, rel=0.05)
    assert np.corrcoef(log[:, 0], log[:, 1])[0, 1] == pytest.approx(0.95, abs=0.01)
    assert (log[:, 1] - log[:, 0]).mean() == pytest.approx(0.0, abs=0.0005)


def test_heavy_tails_are_those_of_t_with_two_degrees() -> None:
    model = replace(MODELS["heavy tails"], iteration=0.0, rows=1)
    log = np.log(model.seconds(np.random.default_rng(6), 20_000)[0, :, :, 0] / model.latency_s()[0]).ravel()
    assert np.median(np.abs(log)) < 0.011
    assert np.abs(log).max() > 0.3
    assert scipy_stats.kurtosis(log) > 50


def test_a_coarse_clock_gives_equal_samples() -> None:
    run = MODELS["quantised"].draw(np.random.default_rng(7), 16)
    assert all(np.ptp(values) == 0 for values in run.shifts.values())
    assert all(np.ptp(process) == 0 for process in run.base["row 03"])


def test_a_seed_gives_the_same_noise() -> None:
    first, second = (MODELS["very noisy"].draw(np.random.default_rng(8), 10) for _ in range(2))
    assert all(np.array_equal(first.shifts[key], second.shifts[key]) for key in first.shifts)


# Recordings.


@pytest.fixture
def recording() -> Recording:
    return recorded(SMALL, np.random.default_rng(9), 20)


def test_a_recording_survives_the_round_trip(recording: Recording, tmp_path: Path) -> None:
    save(recording, tmp_path / "a.json.gz")
    read = load(tmp_path / "a.json.gz")
    assert read == recording
    save(read, tmp_path / "b.json.gz")
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_an_edited_recording_is_refused(recording: Recording, tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    save(recording, path)
    whole = path.read_bytes()
    document = json.loads(gzip.decompress(whole))
    document["blocks"][0]["rows"]["row 00"]["seconds"][0] *= 1.001
    path.write_bytes(gzip.compress(json.dumps(document).encode()))
    with pytest.raises(RecordingRefused, match="edited"):
        load(path)
    for bad in (whole[: len(whole) // 2], b"", b"not gzip", gzip.compress(b"[]"), gzip.compress(b'{"schema": 2}')):
        path.write_bytes(bad)
        with pytest.raises(RecordingRefused):
            load(path)


def test_log_ratios_leave_contended_pairs_out(recording: Recording) -> None:
    block = recording.blocks[1]
    noted = replace(block.rows["row 01"], contended="contended: other processes used 90% of a core meanwhile")
    changed = replace(block, rows={**block.rows, "row 01": noted})
    busy = replace(recording, blocks=(recording.blocks[0], changed, *recording.blocks[2:]))
    assert changed.contended == noted.contended
    assert np.isnan(busy.log_ratios("row 01")).tolist() == [True] + [False] * 19
    assert not np.isnan(busy.log_ratios("row 00")).any()


def test_log_ratios_are_taken_turn_by_turn(recording: Recording) -> None:
    first, second = recording.blocks[:2]
    rows = {"row 00": replace(first.rows["row 00"], seconds=(1.0, 1.0, 2.0, 2.0), turns=2)}
    others = {"row 00": replace(first.rows["row 00"], seconds=(1.1, 1.1, 2.0, 2.0), turns=2)}
    two = replace(recording, blocks=(replace(first, rows=rows), replace(second, rows=others)))
    assert two.log_ratios("row 00") == pytest.approx([math.log(1.1) / 2])


def test_resampling_keeps_pairs_rows_and_neighbours_together(recording: Recording) -> None:
    known = {row.id: recording.log_ratios(row.id) for row in recording.rows}
    place = {value: i for i, value in enumerate(known["row 00"])}
    for seed in range(10):
        run = recording.draw(np.random.default_rng(seed), pairs=32)
        sign = 1.0 if run.shifts[("row 00", LATENCY)][0] in place else -1.0
        places = [place[sign * value] for value in run.shifts[("row 00", LATENCY)]]
        for row, values in known.items():
            assert run.shifts[(row, LATENCY)].tolist() == [sign * values[p] for p in places]
        assert all((places[i + 1] - places[i]) % 20 == 1 for i in range(31) if i % 8 != 7)
        medians = [
            math.log(np.median(b) / np.median(a)) for a, b in zip(run.base["row 00"], run.head["row 00"], strict=True)
        ]
        assert run.shifts[("row 00", LATENCY)] == pytest.approx(medians, abs=1e-12)


def test_every_pair_is_resampled_equally_often() -> None:
    generator = np.random.default_rng(0)
    drawn = np.concatenate([stretches(generator, range(20), 40, 8) for _ in range(500)])
    assert np.bincount(drawn, minlength=20) / len(drawn) == pytest.approx(1 / 20, rel=0.1)


def test_pairs_without_all_rows_are_not_resampled(recording: Recording) -> None:
    missing = [
        replace(b, rows={r: s for r, s in b.rows.items() if r != "row 02"}) if b.pair >= 12 else b
        for b in recording.blocks
    ]
    run = replace(recording, blocks=tuple(missing)).draw(np.random.default_rng(0), pairs=200)
    seen = set(np.abs(run.shifts[("row 00", LATENCY)]))
    assert seen == set(np.abs(recording.log_ratios("row 00")[:12]))


def test_slowing_multiplies_one_arm(recording: Recording) -> None:
    run = recording.draw(np.random.default_rng(0), pairs=8)
    slower = run.slowed({"row 01": 0.03})
    assert slower.shifts[("row 01", LATENCY)] == pytest.approx(run.shifts[("row 01", LATENCY)] + math.log(1.03))
    assert np.array_equal(slower.shifts[("row 00", LATENCY)], run.shifts[("row 00", LATENCY)])
    (base, head), (slower_base, slower_head) = run.processes("row 01", 2, 2), slower.processes("row 01", 2, 2)
    assert np.array_equal(base, slower_base)
    assert np.asarray(slower_head) == pytest.approx(1.03 * np.asarray(head))


def test_other_tools_get_all_of_base_and_then_all_of_head(recording: Recording) -> None:
    run = recording.draw(np.random.default_rng(0), pairs=16)
    base, head = run.processes("row 00", 3, 2)
    assert np.array_equal(base, run.base["row 00"][:3])
    assert np.array_equal(head, run.head["row 00"][3:5])
    base, head = run.processes("row 00", 64, 1)
    assert (len(base), len(head)) == (15, 1)


def test_recordings_of_one_machine_join(recording: Recording) -> None:
    later = replace(recording, metadata=replace(recording.metadata, date="2026-01-02"))
    both = joined([recording, later])
    assert sorted({b.pair for b in both.blocks}) == list(range(40))
    assert {b.run for b in both.blocks} == {0, 1}
    assert len(both.log_ratios("row 00")) == 40
    with pytest.raises(RecordingRefused, match="different cores"):
        joined([recording, replace(recording, metadata=replace(recording.metadata, cores=8))])


def paired_run(folder: Path, head: dict) -> Path:
    """A stored run of one row: two pairs, a control pair, one contended measurement."""
    case = Case(model="digits_vit", weights="digits")
    rows = paired.rows_of([case], {}, {})
    arm = {"environment": {}, "injections": []}
    run = paired.PairedRun(
        id="ab-1",
        suite="gate",
        created="2026-01-02T03:04:05+00:00",
        seed=0,
        budget_s=60,
        device="cpu",
        threads=2,
        arms=({"name": "base", **arm}, {"name": "head", **arm, **head}),
        loaded=({}, {}),
        proof=(),
        environment={"cpu": {"model": "a CPU", "cores_allowed": 2}, "imgbench": "0.2.0", "git": {"commit": "c0ffee"}},
        protocol=Protocol(),
        metrics={},
        rows=rows,
    )
    folder.mkdir()
    paired.write_header(folder, run)
    for pair, (group, sides) in enumerate(
        [("digits_vit", ("base", "head")), ("control", ("base", "control")), ("digits_vit", ("head", "base"))]
    ):
        for slot, side in enumerate(sides):
            seconds = (
                [0.0123456789, 0.0123456789, 0.02, 0.02] if side == "base" else [0.0135802468, 0.0135802468, 0.02, 0.02]
            )
            measurement = Measurement(
                case=case,
                replicate=pair,
                status="ok",
                samples={"latency_s": seconds},
                facts={"turns": 2},
                warnings=("contended: steal",) if pair == 2 and slot == 0 else (),
            )
            paired.append_block(
                folder,
                paired.Block(
                    pair=pair // 2,
                    slot=slot,
                    arm=side,
                    group=group,
                    phase="screen",
                    server=0,
                    started="",
                    elapsed_s=1.0,
                    measurements={rows[0].id: measurement},
                ),
            )
    return folder


def test_a_run_of_the_same_code_becomes_a_recording(tmp_path: Path) -> None:
    found = from_run(paired_run(tmp_path / "run", {}), "quiet")
    assert found.metadata.cpu == "a CPU"
    assert (found.metadata.date, found.metadata.commit, found.metadata.conditions) == ("2026-01-02", "c0ffee", "quiet")
    assert [(b.pair, b.slot, b.arm) for b in found.blocks] == [(0, 0, "a"), (0, 1, "b"), (1, 0, "b"), (1, 1, "a")]
    row = found.rows[0].id
    assert found.blocks[0].rows[row].seconds == (0.012346, 0.012346, 0.02, 0.02)
    assert [b.contended for b in found.blocks] == [None, None, "contended: steal", None]
    assert found.log_ratios(row)[0] == pytest.approx(math.log(0.01358 / 0.012346) / 2)
    assert np.isnan(found.log_ratios(row)[1])


def test_a_run_of_different_code_is_not_noise(tmp_path: Path) -> None:
    with pytest.raises(RecordingRefused, match="differ"):
        from_run(paired_run(tmp_path / "run", {"injections": ["busy=0.05"]}), "quiet")


# The table.


def test_our_rule_on_a_quiet_machine() -> None:
    ours = Ours()
    assert set(ours(MODELS["quiet"], {}, np.random.default_rng(0)).values()) == {"unchanged"}
    found = ours(MODELS["quiet"], {"row 02": 0.05, "row 03": -0.05}, np.random.default_rng(0))
    assert (found["row 02"], found["row 03"]) == ("regressed", "improved")


def test_our_rule_stops_at_its_budget_and_says_so() -> None:
    found = Ours(rounds=2)(MODELS["quiet"], {"row 02": 0.5}, np.random.default_rng(0))
    assert set(found.values()) == {"inconclusive"}


def test_pairs_of_a_busy_machine_are_dropped_by_our_rule(recording: Recording) -> None:
    run = recording.draw(np.random.default_rng(0), pairs=40)
    run.shifts[("row 01", LATENCY)][:10] = np.nan
    decision = Ours(rounds=40, longest=40).decided(run)
    assert {q.key.row: q.dropped for q in decision.questions.values()} == {"row 00": 0, "row 01": 10, "row 02": 0}


def test_the_tail_is_judged_where_there_are_enough_samples() -> None:
    assert ("row 00", TAIL_LATENCY) in MODELS["quiet"].draw(np.random.default_rng(0), 4).shifts


def test_the_table_counts_every_decision(recording: Recording) -> None:
    frame = evaluate(recording, RULES, runs=12, ours=Ours(rounds=12))
    lines = frame.set_index(["rule", "row", "shift"])
    assert (frame["decisions"] == frame[["worse", "better", "same", "inconclusive"]].sum(axis=1)).all()
    assert lines.loc[("criterion.rs", "row 00", 0.03), "decisions"] == 12
    assert lines.loc[("criterion.rs", WHOLE_RUNS, 0.0), "decisions"] == 12
    assert lines.loc[(OURS, "row 00", 0.0), "decisions"] == 12
    assert lines.loc[(OURS, "row 00", 0.05), "decisions"] == 4  # one of three rows is slowed in each run
    assert set(by_row(frame)["row"]) == {"row 00", "row 01", "row 02"}
    again = evaluate(recording, RULES, runs=12, ours=Ours(rounds=12))
    assert frame.equals(again)


def test_the_table_in_markdown() -> None:
    def never(_source: object, _slow: object, _generator: object) -> dict[str, str]:
        return {"row 00": "regressed", "row 01": "unchanged", "row 02": "inconclusive"}

    text = markdown(summary(evaluate(SMALL, {}, runs=3, ours=never)))
    assert text.splitlines()[0].startswith(
        "| rule | processes | A/A | A/A whole runs | +3% caught | +3% called the same |"
    )
    assert text.splitlines()[2] == (
        "| imgbench ab | 8+ pairs | 33.3 % [12.1, 64.6] | 100 % [43.9, 100] | 33.3 % [6.1, 79.2] | 33.3 % [6.1, 79.2] "
        "| 33.3 % [6.1, 79.2] | 33.3 % [6.1, 79.2] |"
    )


@pytest.mark.parametrize("name", list(MODELS))
def test_our_rule_never_alarms_on_equal_code(name: str) -> None:
    frame = evaluate(MODELS[name], {}, runs=10, shifts=(0.0,), ours=Ours(rounds=24, longest=96))
    whole = frame[frame["row"] == WHOLE_RUNS].iloc[0]
    assert (whole["worse"], whole["better"]) == (0, 0)


def test_pooling_and_single_processes_alarm_on_equal_code() -> None:
    table = summary(evaluate(MODELS["shared"], RULES, runs=40, shifts=(0.0,))).set_index("rule")["A/A"]
    assert all(table[rule][1] > 0.10 for rule in ("pyperf compare_to", "criterion.rs", "google/benchmark U test"))
