"""Suite YAML -> validated Suite -> cases. Every error names the field, the value and the nearest valid one.

    name: my-suite
    description: what it is for
    protocol: {replicates: 3}          # any field of harness.types.Protocol
    cases:
      - model: digits_dit              # an entry is a matrix: a list is an axis, a single value a fixed one
        backend: [eager, onnxruntime]
        num_steps: [5, 20]
        exclude: [{backend: onnxruntime, num_steps: 5}]

Anchors and aliases are refused (a few lines of them can expand to gigabytes), and so are repeated keys.
"""

from __future__ import annotations

import difflib
import itertools
import math
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from harness import axis_defaults, strict_yaml, weights
from harness.numerics.optimizations import canonical
from harness.quoting import quoted
from harness.registry import BACKENDS, MODELS, PRECISIONS, SCHEDULERS, UnknownName, nearest
from harness.types import AXES, Case, Model, Protocol, Suite

SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,79}")
MAX_INTEGER = 1_000_000
MAX_FILE_BYTES = 1_000_000
MAX_CASES = 10_000
GENERAL_AXES = ("model", "weights", "backend", "precision", "optimizations", "batch_size", "seed")
OPTIONAL = frozenset({"target_interval", "ratio_interval", "budget_s"})  # may be null
SUITE_FIELDS = ("name", "description", "protocol", "cases")

_POSITIVE_INTEGERS = ("batch_size", "image_size", "num_steps")
_REPEATED = "exclude"


class SuiteError(ValueError):
    """A suite that cannot be run as written; `str()` is one line for the user."""


def read(path: Path, load: Callable[[str], Any] = strict_yaml.load) -> Suite:
    """The suite in a YAML file, which `load` reads. Raises SuiteError with one line that says what to change."""
    try:
        if path.exists() and not path.is_file():
            raise SuiteError(f"{path}: is not a file; a suite is a YAML file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise SuiteError(f"{path}: the file has {size} bytes; a suite may have at most {MAX_FILE_BYTES}")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise SuiteError(f"{path}: {error.strerror}") from None
    try:
        return parse(text, default_name=path.stem, load=load)
    except SuiteError as error:
        raise SuiteError(f"{path}: {error}") from None


def parse(text: str, default_name: str = "suite", load: Callable[[str], Any] = strict_yaml.load) -> Suite:
    """The suite in YAML text. Raises SuiteError."""
    try:
        document = load(text)
    except strict_yaml.NotYaml as error:
        raise SuiteError(str(error)) from None
    if document is None:
        raise SuiteError("the file is empty; a suite needs at least `cases:`")
    if not isinstance(document, dict):
        raise SuiteError(f"a suite is a mapping with `cases:`, not {_kind(document)}")
    for key in document:
        if key not in SUITE_FIELDS:
            raise SuiteError(f"unknown field {quoted(key)}; {nearest(key, list(SUITE_FIELDS))}")
    name = document.get("name", default_name)
    if not isinstance(name, str) or not SAFE_NAME.fullmatch(name):
        raise SuiteError(f"name: {quoted(name)} must be at most 80 letters, digits, '_', '-', '+' or '.'")
    return Suite(
        name=name,
        description=_description(document.get("description")),
        protocol=_protocol({} if document.get("protocol") is None else document["protocol"]),
        cases=_cases(document.get("cases")),
        source=text,
    )


def _description(value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise SuiteError(f"description: {quoted(value)} must be text; write it in quotes")
    return value or ""


def _kind(value: Any) -> str:
    """The name of the type of a value that should have been a mapping."""
    names = {list: "a list", str: "text", bool: "a truth value"}
    return names.get(type(value), "a number")


def check(case: Case) -> str | None:
    """Why the model of `case` does not support it, in one line; None if it does."""
    try:
        _validated(MODELS[case.model], {k: v for k, v in case.axes().items() if v is not None})
    except (SuiteError, UnknownName) as error:
        return str(error)
    return None


def only(cases: Iterable[Case], conditions: str) -> tuple[Case, ...]:
    """The cases for which every `axis=value` of a comma-separated list holds; `a|b` allows several values.

    Raises SuiteError for an unknown axis, and if no case is left.
    """
    wanted: dict[str, set[str]] = {}
    for part in filter(None, (p.strip() for p in conditions.split(","))):
        axis, sign, value = part.partition("=")
        if axis.strip() not in AXES:
            raise SuiteError(f"--only: unknown axis {axis.strip()!r}; {nearest(axis.strip(), list(AXES))}")
        if not sign or not value.strip():
            raise SuiteError(f"--only: {part!r} must be axis=value")
        wanted.setdefault(axis.strip(), set()).update(v.strip() for v in value.split("|"))
    cases = tuple(cases)
    if not wanted:
        raise SuiteError(f"--only: {conditions!r} names no axis; write axis=value")
    if "weights" in wanted:
        words = {word for case in cases for word in weights.keywords(MODELS[case.model])}
        wanted["weights"] = {weights.normalised(value, words) for value in wanted["weights"]}
    for axis, values in wanted.items():
        present = {_text(case.axes()[axis]) for case in cases}
        if unknown := sorted(values - present):
            raise SuiteError(f"--only: no case has {axis}={unknown[0]}; {_near_or_all(unknown[0], present)}")
    left = tuple(c for c in cases if all(_text(c.axes()[axis]) in values for axis, values in wanted.items()))
    if not left:
        raise SuiteError(f"--only {conditions!r} selects no case: no case has all of these values")
    return left


def _near_or_all(value: str, present: Iterable[str]) -> str:
    """ "did you mean 'x'?" for a near miss, else all values that the suite has, numbers in their own order."""
    if close := difflib.get_close_matches(value, list(present), n=1, cutoff=0.5):
        return f"did you mean {close[0]!r}?"
    ordered = sorted(present, key=_by_number)
    *first, last = ordered
    return f"this suite has {', '.join(first)} and {last}" if first else f"this suite has only {last}"


def _by_number(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _protocol(entry: Any) -> Protocol:
    if not isinstance(entry, dict):
        raise SuiteError(f"protocol: {quoted(entry)} must be a mapping")
    known: dict[str, Any] = {f.name: f.default for f in fields(Protocol)}
    for key, value in entry.items():
        if key not in known:
            raise SuiteError(f"protocol: unknown field {quoted(key)}; {nearest(key, list(known))}")
        expected = float if known[key] is None else type(known[key])
        if key in OPTIONAL and value is None:
            continue
        if expected is bool:
            fits = isinstance(value, bool)
        else:
            fits = _is_number(value) and (expected is float or isinstance(value, int))
        if not fits:
            default = "null" if known[key] is None else repr(known[key])
            wanted = f"{_article(expected)}, like the default {default}"
            raise SuiteError(f"protocol.{key}: {quoted(value)} must be {wanted}")
    protocol = Protocol(**entry)
    for key in ("replicates", "min_samples", "warmup_min_iterations", "timeout_s", *sorted(OPTIONAL)):
        if getattr(protocol, key) is not None and getattr(protocol, key) <= 0:
            raise SuiteError(f"protocol.{key}: {getattr(protocol, key)!r} must be greater than 0")
    _check_times(protocol, entry)
    return protocol


def _check_times(protocol: Protocol, given: Mapping[str, Any]) -> None:
    """Raises SuiteError for durations that contradict each other. An explicit maximum overrides a default minimum."""
    for low, high in (("min_sample_time_s", "max_sample_time_s"), ("warmup_min_s", "warmup_max_s")):
        least, most = getattr(protocol, low), getattr(protocol, high)
        if low in given and least > most:
            default = "" if high in given else ", the default"
            raise SuiteError(
                f"protocol.{low}: {least:g} is more than {high} ({most:g}{default}); lower {low} or raise {high}"
            )
    needed = min(protocol.warmup_min_s, protocol.warmup_max_s)
    needed += min(protocol.min_sample_time_s, protocol.max_sample_time_s)
    if "timeout_s" in given and "max_sample_time_s" in given:
        needed = max(needed, protocol.max_sample_time_s)
    if protocol.timeout_s <= needed:
        raise SuiteError(
            f"protocol.timeout_s: {protocol.timeout_s:g} ends a process before it can finish: by the other "
            f"fields, warm-up and samples may take {needed:g} s; raise timeout_s or lower them"
        )


def _is_number(value: Any) -> bool:
    """Whether `value` is a number from 0 to MAX_INTEGER."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _article(kind: type) -> str:
    return {bool: "true or false", int: "a whole number of 0 or more", float: "a number of 0 or more"}[kind]


def _cases(entries: Any) -> tuple[Case, ...]:
    if not isinstance(entries, list) or not entries:
        raise SuiteError("cases: must be a list with at least one entry")
    found: dict[str, Case] = {}
    spellings: dict[Path, str] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            for case in (weights.one_spelling(c, spellings) for c in _matrix(entry)):
                found.setdefault(case.id, case)
        except SuiteError as error:
            raise SuiteError(f"cases[{number}]: {error}") from None
        if len(found) > MAX_CASES:
            raise SuiteError(f"a suite may have at most {MAX_CASES} cases")
    if not found:
        raise SuiteError("cases: `exclude` excludes every case")
    return tuple(found.values())


def _matrix(entry: Any) -> Iterable[Case]:
    if not isinstance(entry, dict):
        raise SuiteError(f"{quoted(entry)} must be a mapping of axes")
    if "model" not in entry:
        if near := difflib.get_close_matches("model", [str(name) for name in entry], n=1, cutoff=0.5):
            raise SuiteError(f"unknown field {quoted(near[0])}; did you mean 'model'?")
        raise SuiteError("`model` is missing")
    words = {word for name in _values("model", entry["model"], ()) for word in weights.keywords(_model(name))}
    axes = {name: _values(name, value, words) for name, value in entry.items() if name != _REPEATED}
    excluded = _excluded(entry.get(_REPEATED, []), axes, words)
    if math.prod(len(v) for v in axes.values()) > MAX_CASES:
        raise SuiteError(f"a suite may have at most {MAX_CASES} cases")
    unused = list(range(len(excluded)))
    for combination in itertools.product(*axes.values()):
        given = dict(zip(axes, combination, strict=True))
        case = _validated(_model(given["model"]), given)
        found = case.axes()
        hits = [i for i, rule in enumerate(excluded) if all(_is_one_of(a, found, rule[a], given) for a in rule)]
        unused = [i for i in unused if i not in hits]
        if not hits:
            yield case
    if unused:
        raise SuiteError(f"exclude: {quoted(_plain(excluded[unused[0]]))} excludes no case")


def _is_one_of(axis: str, found: Mapping[str, Any], values: list[Any], given: Mapping[str, Any]) -> bool:
    """Whether a case has one of the values that an exclusion names for an axis, in normalised or in written form."""
    return found[axis] in values or (axis in given and given[axis] in values)


def _model(name: Any) -> Model:
    if name is None:
        raise SuiteError('model: null without quotes is the empty value of YAML; the model of that name is "null"')
    try:
        return MODELS[name]
    except UnknownName as error:
        raise SuiteError(f"model: {error}") from None


def _values(name: Any, value: Any, words: Collection[str]) -> list[Any]:
    """The values of an axis, weight folders with normalised paths; `words` are the keywords of `weights` here."""
    if name not in AXES:
        raise SuiteError(f"unknown axis {quoted(name)}; {nearest(name, [*AXES, _REPEATED])}")
    if isinstance(value, list) and not value:
        raise SuiteError(f"{name}: the list is empty; give at least one value")
    listed = value if isinstance(value, list) else [value]
    if name != "weights":
        return listed
    return [weights.normalised(v, words) if isinstance(v, str) and v else v for v in listed]


def _plain(rule: Mapping[str, list[Any]]) -> dict[str, Any]:
    return {axis: values[0] if len(values) == 1 else values for axis, values in rule.items()}


def _excluded(rules: Any, axes: Mapping[str, list[Any]], words: Collection[str]) -> list[dict[str, list[Any]]]:
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
        raise SuiteError(f"exclude: {quoted(rules)} must be a list of mappings")
    for rule in rules:
        for axis in rule:
            if axis not in AXES:
                raise SuiteError(f"exclude: unknown axis {quoted(axis)}; {nearest(axis, sorted(axes))}")
            for value in _values(axis, rule[axis], words):
                if axis in axes and not any(value == v and type(value) is type(v) for v in axes[axis]):
                    near = nearest(value, [str(v) for v in axes[axis]])
                    raise SuiteError(f"exclude: {axis} {quoted(value)} is not in this entry; {near}")
    return [{axis: _values(axis, value, words) for axis, value in rule.items()} for rule in rules]


def _validated(model: Model, given: Mapping[str, Any]) -> Case:
    """The case with the model's defaults filled in. Raises SuiteError for the first axis that does not fit."""
    allowed = (*GENERAL_AXES, *model.axes)
    for axis in given:
        if axis not in allowed:
            raise SuiteError(f"{axis}: model {model.name!r} has no such axis; it has {', '.join(allowed)}")
    named = given.get("weights", model.weights[0])
    _check_value(model, "weights", named)
    model = axis_defaults.of_folder(model, named)
    values = {"weights": named, **model.axes, **given}
    for axis, value in values.items():
        try:
            _check_value(model, axis, value)
        except SuiteError as error:
            if axis in given:
                raise
            raise SuiteError(f"the default of model {model.name!r} is not valid: {error}") from None
    if values.get("guidance_scale") is not None:
        values["guidance_scale"] = axis_defaults.guidance(model, values["guidance_scale"])
    values["optimizations"] = canonical(values.get("optimizations"))
    return Case(**values)


def _check_value(model: Model, axis: str, value: Any) -> None:
    if axis in model.axes and value is None and model.axes[axis] is None:
        return
    if axis in _POSITIVE_INTEGERS and not (_is_number(value) and isinstance(value, int) and value >= 1):
        raise SuiteError(f"{axis}: {quoted(value)} must be a whole number from 1 to {MAX_INTEGER}")
    if axis == "seed" and (not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31):
        raise SuiteError(f"seed: {quoted(value)} must be a whole number from 0 to 2147483647")
    if axis == "guidance_scale" and not _is_number(value):
        raise SuiteError(f"guidance_scale: {quoted(value)} must be a number from 0 to {MAX_INTEGER}")
    if axis == "prompt":
        _check_prompt(value)
    if axis == "image_size":
        _check_image_size(model, value)
    if axis == "optimizations":
        _check_optimizations(value)
    if axis == "weights":
        _check_weights(model, value)
    known = {"precision": PRECISIONS, "backend": BACKENDS, "scheduler": SCHEDULERS}.get(axis)
    if known is not None and value not in list(known):
        raise SuiteError(f"{axis}: unknown {axis} {quoted(value)}; {nearest(value, list(known))}")


def _check_optimizations(value: Any) -> None:
    try:
        canonical(value)
    except ValueError as error:
        raise SuiteError(f"optimizations: {error}") from None


def _check_prompt(value: Any) -> None:
    """Refuses control characters except line breaks and tabs: no tokenizer needs them, and terminals interpret them."""
    if not isinstance(value, str) or not value.strip():
        raise SuiteError(f"prompt: {quoted(value)} must be text")
    for place, character in enumerate(value, start=1):
        if unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t":
            raise SuiteError(
                f"prompt: {quoted(value)} has the control character U+{ord(character):04X} at position {place}; "
                "leave it out"
            )


def _check_image_size(model: Model, value: int) -> None:
    default, multiple = model.axes["image_size"], model.image_size_multiple
    if value == default:
        return
    if multiple is None:
        raise SuiteError(f"image_size: model {model.name!r} supports {default} only, not {value}; leave image_size out")
    if value % multiple or value > model.max_image_size:
        nearest_size = min(max(round(value / multiple), 1) * multiple, model.max_image_size)
        raise SuiteError(
            f"image_size: {value} must be a multiple of {multiple} up to {model.max_image_size}; "
            f"the nearest is {nearest_size}"
        )


def _check_weights(model: Model, value: Any) -> None:
    keywords = weights.keywords(model)
    if value in keywords:
        return
    if not isinstance(value, str) or not value:
        raise SuiteError(f"weights: {quoted(value)} must be text; {nearest(value, keywords)}")
    try:
        is_folder = Path(value).expanduser().is_dir()
    except (OSError, RuntimeError, ValueError):
        is_folder = False
    if "folder" in model.weights and is_folder:
        return
    what = (
        "is a folder, and this model does not support folders"
        if is_folder
        else "is neither a known keyword nor a folder"
    )
    raise SuiteError(f"weights: {quoted(value)} {what}; {nearest(value, keywords)}")
