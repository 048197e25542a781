"""Seeded, damaged inputs: a number in, the same suite, run, or folder of weights out on every machine."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import baselines.stored.store
from harness import storage

# Of every type, and those at the borders of what a number or a text can be.
JSON_VALUES = (
    None, True, -1, 0, 3.5, 1e308, float("nan"), float("inf"), 10**400, "", "x", "2026", "\ud800", "é\u202e",
    [], {}, [None], ["x"], {"a": None},
)  # fmt: skip
YAML_VALUES = (
    "null", "~", "true", "yes", "-1", "0", "3.0", "1e308", "1e400", ".nan", ".inf", "9" * 30, "9" * 5000, "0x10",
    "1_000", "010", "2026-01-01", "12:30", '""', "'  '", '"1"', '"é😀\\u202e"', '"\\ud800"', '"\\0"', '"a\\nb"',
    '"' + "x" * 5000 + '"', "../../x", "/", ".", "~nosuch/x", "[]", "{}", "[[]]", "[null]", "[1, 1, 1]", "[1, 2.5]",
    "{a: 1}", "[{a: 1}]", "[eager, eager]", "&a 1", "*a", "!!python/object:os.system x", "? x", "- x", "[", "]", "{",
    '"unterminated', "%", "@x", "`x`", '"=1"', "|\n    text",
)  # fmt: skip
AXES = (
    "model", "weights", "backend", "precision", "batch_size", "image_size", "scheduler", "num_steps", "guidance_scale",
    "prompt", "optimizations", "seed", "exclude", "description", "resolution", "Model", "1", "null", "true", "[a]",
)  # fmt: skip
PROTOCOL = (
    "replicates", "warmup_min_iterations", "warmup_min_s", "warmup_max_s", "min_samples", "min_sample_time_s",
    "max_sample_time_s", "target_interval", "contended_retries", "timeout_s", "quality", "stages", "nope",
)  # fmt: skip
SOUND = 'name: x\ndescription: "é"\ncases:\n  - model: digits_vit\n    batch_size: [1, 2]\n'


def suite(seed: int) -> bytes:
    """A suite with odd values at its fields, or one whose bytes are no YAML of ours."""
    rng = random.Random(f"suite {seed}")
    value, kind = rng.choice(YAML_VALUES), rng.random()
    if kind < 0.5:
        model = rng.choice(("digits_vit", "digits_sd", "digits_dit", "sd15", "vit_tiny_patch16_224", "nope"))
        axes = "".join(f"    {a}: {rng.choice(YAML_VALUES)}\n" for a in rng.sample(AXES, rng.randint(1, 4)))
        return f"cases:\n  - model: {model}\n{axes}".encode()
    if kind < 0.65:
        return f"protocol: {{{rng.choice(PROTOCOL)}: {value}}}\ncases: [{{model: digits_vit}}]\n".encode()
    if kind < 0.75:
        field = rng.choice(("name", "description", "protocol", "cases", "other"))
        return f"{field}: {value}\n{'' if field == 'cases' else 'cases: [{model: digits_vit}]'}\n".encode()
    if kind < 0.82:
        return f"cases:\n  - model: digits_vit\n    exclude: [{{{rng.choice(AXES)}: {value}}}]\n".encode()
    return rng.choice(_odd_bytes(rng, value))


def _odd_bytes(rng: random.Random, value: str) -> tuple[bytes, ...]:
    sound = SOUND.encode()
    return (
        b"", b"\n", b"---\n", b"--- a\n--- b\n", value.encode(), sound * 2, sound.replace(b"\n", b"\r\n"),
        sound.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + sound, SOUND.encode("utf-16"), SOUND.encode("latin-1"),
        sound.replace(b"  ", b"\t"), rng.randbytes(200), b"\0" * 50, b"[" * 5000, b"{a: " * 3000,
        b"cases: " + b"- " * 2000, sound[: rng.randrange(len(sound))], b"\xed\xa0\x80: 1\n", b"x" * 1_000_001,
    )  # fmt: skip


def sound_run(folder: Path, run_id: str) -> Path:
    """A run folder with four rows of the shipped reference run: classifiers and a sampler, and controls."""
    run = baselines.stored.store.load(baselines.stored.store.DEFAULT_ROOT / "reference" / "digits.json").run
    wanted = [c for c in run.cases if c.model == "digits_vit" and c.batch_size == 32 and c.precision != "bf16"]
    chosen = [c for c in wanted if c.backend in ("eager", "tensorrt")][:3]
    chosen += [c for c in run.cases if c.model == "digits_dit"][:1]
    whole = {"top1", "recognised"}
    small = replace(
        run,
        id=run_id,
        cases=tuple(chosen),
        measurements=tuple(
            replace(m, samples={k: v if k in whole else v[:20] for k, v in m.samples.items()}, warmup={})
            for m in run.measurements
            if m.case in chosen
        ),
    )
    storage.create(folder, small)
    for measurement in small.measurements:
        storage.append(folder, measurement)
    for control in run.controls[:2]:
        storage.append_control(folder, control)
    return folder


def changed(document: Any, rng: random.Random) -> tuple[Any, str]:
    """The document with one field taken out or given another value, and which."""
    new = copy.deepcopy(document)
    path = rng.choice(list(_paths(new)))
    at = new
    for key in path[:-1]:
        at = at[key]
    if rng.random() < 0.25:
        del at[path[-1]]
        return new, f"{path} taken out"
    at[path[-1]] = copy.deepcopy(rng.choice(JSON_VALUES))
    return new, f"{path} is {str(at[path[-1]])[:40]!r}"


def _paths(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(document, dict):
        items: list[tuple[Any, Any]] = list(document.items())
    else:
        items = list(enumerate(document[:2])) if isinstance(document, list) else []
    for key, value in items:
        yield (*before, key)
        yield from _paths(value, (*before, key))


Damage = Callable[[Path, bytes, random.Random], None]

# What befalls a whole file; it is not there any more when this is called. `bytes` are what it held.
DAMAGES: dict[str, Damage] = {
    "missing": lambda path, was, rng: None,
    "empty": lambda path, was, rng: path.write_bytes(b"") and None,
    "cut off": lambda path, was, rng: path.write_bytes(was[: rng.randrange(len(was) // 2) + 1]) and None,
    "a folder": lambda path, was, rng: path.mkdir(),
    "a pipe": lambda path, was, rng: os.mkfifo(path),
    "a link to itself": lambda path, was, rng: path.symlink_to(path.name),
    "a link to nowhere": lambda path, was, rng: path.symlink_to("nowhere"),
    "noise": lambda path, was, rng: path.write_bytes(rng.randbytes(300)) and None,
    "UTF-16": lambda path, was, rng: path.write_bytes(was.decode("latin-1").encode("utf-16")) and None,
    "another document": lambda path, was, rng: path.write_bytes(b"[]") and None,
    "null": lambda path, was, rng: path.write_bytes(b"null") and None,
    "deep": lambda path, was, rng: path.write_bytes(b"[" * 100_000) and None,
    "zeros in it": lambda path, was, rng: path.write_bytes(was[:50] + bytes(len(was) - 50)) and None,
}
RENAMED = "renamed"


def damage(path: Path, rng: random.Random) -> str:
    """Damages a whole file, and says how."""
    how = rng.choice([*DAMAGES, RENAMED])
    was = path.read_bytes()
    path.unlink()
    if how == RENAMED:
        path.with_name(f"x{path.name}").write_bytes(was)
    else:
        DAMAGES[how](path, was, rng)
    return f"{path.name}: {how}"


def damaged_run(seed: int, run: Path, session: Path) -> str:
    """Damages a run folder, or the stored session that it is compared with; says what was done."""
    rng = random.Random(f"run {seed}")
    names = ("run.json", "measurements.jsonl", "controls.jsonl", "comparison.json")
    kind = rng.choice(("file", "field", "line", "session"))
    if kind == "file":
        return damage(rng.choice((*(run / name for name in names), session)), rng)
    if kind == "session":
        document, what = changed(json.loads(session.read_text()), rng)
        with_seal = isinstance(document, dict) and "hash" in document and "\ud800" not in json.dumps(document)
        if with_seal and "ud800" not in json.dumps(document):
            document["hash"] = baselines.stored.store.seal(document)
        session.write_text(json.dumps(document))
        return f"{session.name}: {what}"
    path = run / rng.choice(("run.json", "comparison.json") if kind == "field" else names[1:3])
    if kind == "field":
        document, what = changed(json.loads(path.read_text()), rng)
        path.write_text(json.dumps(document))
        return f"{path.name}: {what}"
    lines = path.read_text().splitlines()
    number = rng.randrange(len(lines))
    if rng.random() < 0.2:
        lines.insert(number, lines[number])
        what = "stands twice"
    else:
        document, what = changed(json.loads(lines[number]), rng)
        lines[number] = json.dumps(document)
    path.write_text("\n".join(lines) + "\n")
    return f"{path.name} line {number + 1}: {what}"


def damaged_weights(seed: int, folder: Path) -> str:
    """Damages a folder of weights: one file, or one field of one of its JSON files. Says what was done."""
    rng = random.Random(f"weights {seed}")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if rng.random() < 0.4:
        return damage(rng.choice(files), rng)
    if rng.random() < 0.2:
        one, other = rng.sample(files, 2)
        shutil.copy(other, one)
        return f"{one.name} holds {other.name}"
    path = rng.choice([file for file in files if file.suffix == ".json"])
    document = json.loads(path.read_text())
    key = rng.choice(sorted(document))
    document[key] = rng.choice([value for value in JSON_VALUES if value != "\ud800"])
    path.write_text(json.dumps(document))
    return f"{path.relative_to(folder)}: {key} is {str(document[key])[:40]!r}"
