"""Recordings: stored, read, resampled, made of runs."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import paired_fixture as fixture
import pytest

from baselines.detector.drawn import LATENCY, segments
from baselines.detector.noise import NoiseModel, recorded
from baselines.detector.recorded import Recording, RecordingRefused, from_run, joined, load, save
from harness.paired import paired_run
from harness.reasons import Reason
from harness.types import Case, Measurement

SMALL = NoiseModel(description="three rows", rows=3, samples=6)


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
    noted = replace(block.rows["row 01"], contended="contended: other processes used 90 % of a core meanwhile")
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
    drawn = np.concatenate([segments(generator, range(20), 40, 8) for _ in range(500)])
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


def stored_run(folder: Path, head: dict) -> Path:
    """A stored run of one row: two pairs, a control pair, one contended measurement."""
    case = Case(model="digits_vit", weights="digits")
    rows = paired_run.rows_of([case], {}, {})
    arm = {"environment": {}, "injections": []}
    environment = {"cpu": {"model": "a CPU", "cores_allowed": 2}, "imgbench": "0.2.0", "git": {"commit": "c0ffee"}}
    arms = ({"name": "base", **arm}, {"name": "head", **arm, **head})
    run = fixture.new_paired_run(arms=arms, environment=environment, threads=2, rows=rows)
    folder.mkdir()
    paired_run.write_header(folder, run)
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
                warnings=(Reason("contended_steal", {"share": 0.3}),) if pair == 2 and slot == 0 else (),
            )
            paired_run.append_process(
                folder,
                paired_run.PairedProcess(
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
    found = from_run(stored_run(tmp_path / "run", {}), "quiet")
    assert found.metadata.cpu == "a CPU"
    assert (found.metadata.date, found.metadata.commit, found.metadata.conditions) == ("2026-01-02", "c0ffee", "quiet")
    assert [(b.pair, b.slot, b.arm) for b in found.blocks] == [(0, 0, "a"), (0, 1, "b"), (1, 0, "b"), (1, 1, "a")]
    row = found.rows[0].id
    assert found.blocks[0].rows[row].seconds == (0.012346, 0.012346, 0.02, 0.02)
    assert [b.contended for b in found.blocks] == [
        None, None, "contended: the hypervisor took 30 % of a core during the measurement", None,
    ]  # fmt: skip
    assert found.log_ratios(row)[0] == pytest.approx(math.log(0.01358 / 0.012346) / 2)
    assert np.isnan(found.log_ratios(row)[1])


def test_a_run_of_different_code_is_not_noise(tmp_path: Path) -> None:
    with pytest.raises(RecordingRefused, match="differ"):
        from_run(stored_run(tmp_path / "run", {"injections": ["busy=0.05"]}), "quiet")
