"""Suites: what expands, and one clear line for each thing that is wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benches import suites
from harness import strict_yaml, suite
from harness.suite import SuiteError
from harness.types import Case, Model

PLANTED = "cases: [{model: planted_ok"


def test_lists_are_axes_and_exclude_takes_cases_out() -> None:
    cases = suite.parse(
        "cases:\n - model: planted_ok\n   backend: [eager, onnxruntime]\n   precision: [fp32, bf16]\n"
        "   batch_size: [1, 4]\n"
        "   exclude: [{backend: onnxruntime, precision: bf16}]"
    ).cases
    assert [(c.backend, c.precision, c.batch_size) for c in cases] == [
        ("eager", "fp32", 1),
        ("eager", "fp32", 4),
        ("eager", "bf16", 1),
        ("eager", "bf16", 4),
        ("onnxruntime", "fp32", 1),
        ("onnxruntime", "fp32", 4),
    ]


def test_defaults_come_from_the_model() -> None:
    (case,) = suite.parse("cases: [{model: digits_dit}]").cases
    assert (case.weights, case.image_size, case.scheduler, case.num_steps) == ("digits", 32, "dpmpp_2m", 20)


@pytest.mark.parametrize("model", ["digits_sd", "digits_dit", "sd15", "sdxl", "dit_s_2"])
def test_guidance_scales_that_ask_for_no_guidance_are_one_case(model: str) -> None:
    line = f"cases: [{{model: {model}, guidance_scale: [0, 0.5, 1, 1.0, 1.5]"
    assert [c.guidance_scale for c in suite.parse(f"{line}}}]").cases] == [1.0, 1.5]
    left = suite.parse(f"{line}, exclude: [{{guidance_scale: [0, 0.5, 1]}}]}}]").cases
    assert [c.guidance_scale for c in left] == [1.5]
    assert len({c.id for c in suite.parse(f"cases: [{{model: {model}, guidance_scale: [0, 1]}}]").cases}) == 1


def test_a_model_that_says_nothing_of_guidance_has_a_case_for_every_scale() -> None:
    """A plugin's pipeline may do something else at or below 1."""
    model = Model(
        name="m",
        build=lambda case: NotImplemented,
        family="f",
        description="d",
        axes={"guidance_scale": 3.0},
    )
    scales = [suite._validated(model, {"model": "m", "guidance_scale": scale}).guidance_scale for scale in (0, 0.5, 1)]
    assert scales == [0.0, 0.5, 1.0]


def test_the_same_case_twice_is_one_case() -> None:
    assert len(suite.parse(f"{PLANTED}}}, {{model: planted_ok, batch_size: [1, 2]}}]").cases) == 2


def test_case_id_is_stable_and_depends_on_every_axis() -> None:
    case = Case(model="m", image_size=32)
    assert case.id == Case(model="m", image_size=32).id
    changed = [case.with_(seed=1), case.with_(weights="digits"), case.with_(prompt="x"), case.with_(num_steps=2)]
    assert len({c.id for c in (case, *changed)}) == 5


def test_case_id_is_a_safe_file_name() -> None:
    assert "/" not in Case(model="<script>../../x").id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("- 1", "a suite is a mapping"),
        ("cases: []", "at least one entry"),
        ("name: x", "cases: must be a list"),
        ("nmae: x\ncases: [{model: planted_ok}]", "unknown field 'nmae'; did you mean 'name'?"),
        ("cases: [{model: digits_vti}]", "unknown model 'digits_vti'; did you mean 'digits_vit'?"),
        ("cases: [{precision: fp32}]", "`model` is missing"),
        ("cases: [{modle: planted_ok}]", "unknown field 'modle'; did you mean 'model'?"),
        (f"{PLANTED}, precision: fp17}}]", "unknown precision 'fp17'; did you mean 'fp16'?"),
        (f"{PLANTED}, backend: onnx}}]", "unknown backend 'onnx'; did you mean 'onnxruntime'?"),
        (f"{PLANTED}, batch_size: 0}}]", "batch_size: 0 must be a whole number from 1"),
        (f"{PLANTED}, batch_size: true}}]", "batch_size: True must be a whole number"),
        (f"{PLANTED}, batch_size: 1.5}}]", "batch_size: 1.5 must be a whole number"),
        (f"{PLANTED}, batch_size: []}}]", "batch_size: the list is empty"),
        (f"{PLANTED}, bacth_size: 1}}]", "unknown axis 'bacth_size'; did you mean 'batch_size'?"),
        (f"{PLANTED}, num_steps: 3}}]", "model 'planted_ok' has no such axis; it has model, weights"),
        (f"{PLANTED}, image_size: 16}}]", "supports 8 only, not 16"),
        (f"{PLANTED}, weights: pretraned}}]", "is neither a known keyword nor a folder"),
        (f"{PLANTED}, seed: -1}}]", "seed: -1 must be a whole number"),
        (f"{PLANTED}, exclude: [{{backend: eager}}]}}]", "`exclude` excludes every case"),
        (f"{PLANTED}, exclude: [{{backend: eger}}]}}]", "excludes no case"),
        (f"{PLANTED}, backend: [eager, onnxruntime], exclude: [{{backend: eger}}]}}]", "did you mean 'eager'?"),
        (f"{PLANTED}, weights: ~nosuchuser/x}}]", "neither a known keyword nor a folder"),
        (f"{PLANTED}, weights: {'x' * 5000}}}]", "neither a known keyword nor a folder"),
        (f"{PLANTED}, image_size: null}}]", "image_size: None must be"),
        (f"{PLANTED}, batch_size: 99999999999999}}]", "must be a whole number from 1 to 1000000"),
        (f"cases: [{{model: digits_dit, guidance_scale: {'9' * 400}}}]", "guidance_scale: "),
        ('cases: [{model: digits_sd, prompt: "\\ud800"}]', "prompt: "),
        (f"{PLANTED}, exclude: 3}}]", "exclude: 3 must be a list of mappings"),
        (f"{PLANTED}, batch_size: [1, 2], batch_size: 4}}]", "'batch_size' appears twice"),
        ("cases: [{model: digits_dit, scheduler: dpm_2m}]", "unknown scheduler 'dpm_2m'; did you mean 'dpmpp_2m'?"),
        ("cases: [{model: digits_dit, num_steps: 0}]", "num_steps: 0 must be"),
        ("cases: [{model: digits_dit, guidance_scale: .nan}]", "guidance_scale: nan is not finite"),
        (
            "protocol: {replicats: 2}\ncases: [{model: planted_ok}]",
            "unknown field 'replicats'; did you mean 'replicates'?",
        ),
        ("protocol: {replicates: 0}\ncases: [{model: planted_ok}]", "replicates: 0 must be greater than 0"),
        ("protocol: {quality: 1}\ncases: [{model: planted_ok}]", "quality: 1 must be true or false"),
        ("protocol: {timeout_s: .inf}\ncases: [{model: planted_ok}]", "timeout_s: inf is not finite"),
        ("a: &a [x, x]\nb: &b [*a, *a]\ncases: [*b, *b]", "anchors and aliases are not allowed"),
        ("cases: [", "not valid YAML"),
        ("cases: " + "[" * 5000, "not"),
        ("name: ../x\ncases: [{model: planted_ok}]", "must be at most 80 letters, digits"),
        (f"{PLANTED}, seed: [{','.join(map(str, range(10_001)))}]}}]", "at most 10000 cases"),
    ],
)
def test_a_bad_suite_gets_one_clear_line(text: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        suite.parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_missing_too_large_or_not_text(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_text("#" * (suite.MAX_FILE_BYTES + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    for path, message in [(tmp_path / "none.yaml", "No such file"), (large, "at most"), (binary, "not UTF-8")]:
        with pytest.raises(SuiteError, match=message):
            suite.read(path)


def test_only_filters_by_axis_and_says_what_there_is() -> None:
    cases = suite.parse(
        f"{PLANTED}, backend: [eager, onnxruntime], precision: [fp32, int8_dynamic], batch_size: [1, 2]}}]"
    ).cases
    assert {c.batch_size for c in suite.only(cases, "backend=onnxruntime,precision=int8_dynamic")} == {1, 2}
    assert len(suite.only(cases, "backend=eager|onnxruntime, batch_size=2")) == 4
    for conditions in ("batch_size=3", "backend=eager|onnxrutime"):
        with pytest.raises(SuiteError, match="no case has"):
            suite.only(cases, conditions)
    with pytest.raises(SuiteError, match="names no axis"):
        suite.only(cases, ",")
    with pytest.raises(SuiteError, match=r"unknown axis 'bakend'; did you mean 'backend'\?"):
        suite.only(cases, "bakend=eager")


def test_both_scanners_read_the_built_in_suites_alike_and_strictly() -> None:
    """The files that imgbench contains are read by libyaml, and a copy of one that a user changes is not."""
    for file in suites.FOLDER.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert strict_yaml.load_shipped(text) == strict_yaml.load(text)
    for load in (strict_yaml.load, strict_yaml.load_shipped):
        with pytest.raises(strict_yaml.NotYaml, match="line 1: a: 010 has a leading zero"):
            load("a: 010")
        with pytest.raises(strict_yaml.NotYaml, match="'a' appears twice"):
            load("a: 1\na: 2")
        with pytest.raises(strict_yaml.NotYaml, match="line 2: anchors and aliases are not allowed"):
            load("a: 1\nb: *a")


def test_only_the_built_in_suites_are_read_by_libyaml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(strict_yaml, "load_shipped", lambda text: seen.append(text) or strict_yaml.load(text))
    text = (suites.FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    (tmp_path / "smoke.yaml").write_text(text, encoding="utf-8")
    suites.find(str(tmp_path / "smoke.yaml"))
    assert seen == []
    assert suites.find("smoke").source == text
    assert seen == [text]


def test_every_built_in_suite_is_valid() -> None:
    assert "digits" in suites.names()
    for name in suites.names():
        assert suites.find(name).name == name


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("batch_size: 010", "batch_size: 010 has a leading zero, which is octal in YAML 1.1; write 10"),
        ("batch_size: 08", "batch_size: 08 has a leading zero"),
        ("batch_size: [1, 0o10]", "batch_size: 0o10 is octal in YAML 1.2 and text in YAML 1.1; write 8"),
        ("batch_size: 1:30", "batch_size: 1:30 is a base-60 number in YAML 1.1"),
        ("seed: 1_000", "seed: 1_000 has a '_' in a number; write 1000"),
        ("seed: 0b11", "seed: 0b11 is not a decimal number"),
        ("guidance_scale: 1_0.5", "guidance_scale: 1_0.5 has a '_' in a number; write 10.5"),
        ("guidance_scale: 1:30.5", "guidance_scale: 1:30.5 is a base-60 number"),
        ("guidance_scale: .inf", "guidance_scale: inf is not finite; write a finite number"),
        ("guidance_scale: -.Inf", "guidance_scale: -inf is not finite; write a finite number"),
        ("guidance_scale: 1e999", "guidance_scale: inf is not finite; write a finite number"),
        ("prompt: yes", "prompt: yes is a boolean in YAML 1.1 and text in YAML 1.2; write true or false, or"),
        ("prompt: Off", "prompt: Off is a boolean"),
        ("prompt: 2026-11-27", "prompt: 2026-11-27 is a date in YAML 1.1; write '2026-11-27' in quotes"),
        ("prompt: !!int '010'", "tags are not allowed; leave tag:yaml.org,2002:int out"),
    ],
)
def test_a_word_of_two_meanings_is_refused_with_what_to_write(field: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        suite.parse(f"cases:\n - model: sd15\n   {field}\n")
    assert str(caught.value).startswith("line 3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "description: 007",
        "protocol: {quality: yes}",
        "protocol: {replicates: 0_3}",
        "name: off",
        "on: {}",
        "<<: {a: 1}",
    ],
)
def test_a_word_of_two_meanings_is_refused_anywhere_in_the_document(text: str) -> None:
    with pytest.raises(SuiteError, match=r"^line 1: .*(octal|boolean|not allowed)"):
        suite.parse(f"{text}\ncases: [{{model: planted_ok}}]")


@pytest.mark.parametrize(
    ("written", "value"), [("1e-2", 0.01), ("1E-2", 0.01), ("1.0e-2", 0.01), (".01", 0.01), ("1e0", 1.0), ("+1", 1)]
)
def test_a_number_is_a_number_however_it_is_written(written: str, value: float) -> None:
    found = suite.parse(f"protocol: {{target_interval: {written}}}\ncases: [{{model: planted_ok}}]").protocol
    assert found.target_interval == value


def test_quoted_words_are_text() -> None:
    for word in ("010", "1:30", "yes", "1e-2", ".inf", "2026-11-27"):
        (case,) = suite.parse(f"cases: [{{model: sd15, prompt: '{word}'}}]").cases
        assert case.prompt == word


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("a cat\non a mat\n", '"a cat\\non a mat\\n"'),
        ("👩‍🚀 portrait", '"👩‍🚀 portrait"'),
        ("a\u00a0cat", '"a\u00a0cat"'),
        ("\u200fשלום\u202e abc", '"\\u200fשלום\\u202e abc"'),
        ("a\tcat\u2028dog", '"a\\tcat\\u2028dog"'),
    ],
)
def test_a_prompt_may_be_any_text_and_its_label_is_one_line(prompt: str, shown: str) -> None:
    (case,) = suite.parse(f"cases: [{{model: sd15, prompt: {json.dumps(prompt)}}}]").cases
    assert case.prompt == prompt
    assert case.label.endswith(shown)
    assert len(case.label.splitlines()) == 1


@pytest.mark.parametrize(
    ("written", "name"), [(r"a\0b", "U+0000"), (r"a\eb", "U+001B"), (r"a\rb", "U+000D"), (r"a\x85b", "U+0085")]
)
def test_a_control_character_in_a_prompt_is_named(written: str, name: str) -> None:
    with pytest.raises(SuiteError, match=rf"control character {re.escape(name)} at position 2; leave it out"):
        suite.parse(f'cases: [{{model: sd15, prompt: "{written}"}}]')


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ("min_sample_time_s: 2, max_sample_time_s: 1", "min_sample_time_s: 2 is more than max_sample_time_s (1)"),
        ("min_sample_time_s: 31", "min_sample_time_s: 31 is more than max_sample_time_s (30, the default)"),
        ("warmup_min_s: 2, warmup_max_s: 1", "warmup_min_s: 2 is more than warmup_max_s (1)"),
        ("warmup_min_s: 11", "warmup_min_s: 11 is more than warmup_max_s (10, the default)"),
        ("timeout_s: 0.7", "timeout_s: 0.7 ends a process before it can finish"),
        ("timeout_s: 5, max_sample_time_s: 6", "by the other fields, warm-up and samples may take 6 s;"),
        ("timeout_s: 5, min_sample_time_s: 6", "by the other fields, warm-up and samples may take 6.3 s;"),
    ],
)
def test_times_that_contradict_each_other_are_refused(protocol: str, message: str) -> None:
    with pytest.raises(SuiteError) as caught:
        suite.parse(f"protocol: {{{protocol}}}\n{PLANTED}}}]")
    assert message in str(caught.value)


def test_a_maximum_overrules_a_default_minimum() -> None:
    found = suite.parse(f"protocol: {{warmup_max_s: 0.05, max_sample_time_s: 0.1, timeout_s: 25}}\n{PLANTED}}}]")
    assert (found.protocol.warmup_max_s, found.protocol.max_sample_time_s) == (0.05, 0.1)
