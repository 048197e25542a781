"""The gate as CI sees it: exit status through sh, make and pytest, the scripts of the action."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from baseline_fixture import latency, measured, run_of
from ci_fixture import ACTION, BASH, PAGE, ROOT, command, environment, snippets

from baselines.stored import store
from benches.cli import main, parser
from harness import storage
from harness.types import Run

SESSIONS = (1.0, 1.001, 0.999, 1.0, 1.002, 0.998)


def write_run(run: Run, folder: Path) -> None:
    storage.create(folder, run)
    for measurement in run.measurements:
        storage.append(folder, measurement)


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder with six stored sessions, a run 30 % slower in slow/, one as ever in runs/, and imgbench on bin/."""
    for number, seconds in enumerate(SESSIONS):
        session = run_of(measured(latency(seconds, seconds, seconds)), run_id=f"session-{number}")
        store.save(session, "as ever", tmp_path / "store")
    write_run(run_of(measured(latency(1.3, 1.3, 1.3)), run_id="slow"), tmp_path / "slow" / "now")
    write_run(run_of(measured(latency(1.0, 1.0, 1.0)), run_id="same"), tmp_path / "runs" / "now")
    command(tmp_path, "imgbench", f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m benches.cli "$@"')
    return tmp_path


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    variables = environment(folder / "bin", IMGBENCH_BASELINES=str(folder / "store"))
    return subprocess.run(["sh", "-c", line], cwd=folder, env=variables, capture_output=True, text=True, check=False)


def test_sh_sees_the_regression_and_every_file_is_there(planted: Path) -> None:
    assert shell("imgbench compare runs", planted).returncode == 0
    files = "--junit junit.xml --markdown c.md --comment comment.md --badge badge.json --json-file c.json"
    done = shell(f"imgbench compare slow {files} --annotations --step-summary summary.md", planted)
    assert done.returncode == 10
    assert "::error title=imgbench%3A regressed%3A latency_s::" in done.stdout
    suite = ElementTree.fromstring((planted / "junit.xml").read_bytes())[0]
    assert (suite.get("failures"), suite.get("errors")) == ("1", "0")
    assert "**Red: 1 row is slower.**" in (planted / "comment.md").read_text()
    assert json.loads((planted / "badge.json").read_text())["message"] == "regressed in 1 row"
    assert json.loads((planted / "c.json").read_text())["exit_code"] == 10
    assert (planted / "summary.md").read_text() == (planted / "c.md").read_text()


def test_exit_zero_tells_the_truth_in_the_files(planted: Path) -> None:
    done = shell("imgbench compare slow --exit-zero --json-file c.json --junit junit.xml", planted)
    assert done.returncode == 0
    assert json.loads((planted / "c.json").read_text())["exit_code"] == 10
    assert b"<failure" in (planted / "junit.xml").read_bytes()


def test_make_returns_2_and_the_documented_recipe_keeps_the_code(planted: Path) -> None:
    (planted / "Makefile").write_text("gate:\n\t@imgbench compare slow\n")
    plain = shell("make gate", planted)
    assert plain.returncode == 2
    assert "Error 10" in plain.stderr
    (recipe,) = snippets("make")
    (call,) = [s for s in snippets("sh") if s.startswith("make")]
    (planted / "Makefile").write_text(recipe)
    assert shell(call, planted).returncode == 0
    (planted / "Makefile").write_text(recipe.replace("compare runs", "compare slow"))
    assert shell(call, planted).returncode == 10


def test_the_documented_pytest_test_fails_for_a_regression_and_says_which(planted: Path) -> None:
    (test,) = [s for s in snippets("python") if "def test_" in s]
    (planted / "test_speed.py").write_text(test)
    run_it = f"{sys.executable} -m pytest -q -p no:cacheprovider test_speed.py"
    passed = shell(run_it, planted)
    assert passed.returncode == 0, passed.stdout
    (planted / "test_speed.py").write_text(test.replace('"runs"', '"slow"'))
    failed = shell(run_it, planted)
    assert failed.returncode == 1
    assert "exit code 10" in failed.stdout


def test_json_and_annotations_do_not_share_stdout(planted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(planted / "slow"), "--json", "--annotations"]) == 64
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [None, ""])
def test_the_step_summary_has_a_place_outside_of_github(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    if value is not None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", value)
    assert parser().parse_args(["compare", "x", "--step-summary"]).step_summary == Path("step-summary.md")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/given")
    for line in (["compare", "x"], ["ab", "gate"]):
        assert parser().parse_args([*line, "--step-summary"]).step_summary == Path("/given")
        assert parser().parse_args(line).step_summary is None


class TestAction:
    """The `run:` scripts of action.yml, in bash, with commands in place of imgbench and pip that note what they get."""

    STEPS: Mapping[str, Any] = {step.get("name", step.get("uses")): step for step in ACTION["runs"]["steps"]}
    MEASURE = STEPS["Measure base against head"]
    FAKE = """printf '%s\\n' "$@" > "$RUNNER_TEMP/arguments"
while [ $# -gt 0 ]; do
  case "$1" in
    --junit|--markdown|--comment|--badge) echo "$1" > "$2" ;;
    --json-file) printf '{"sentence": "Red: 1 row\\\\nis slower."}' > "$2" ;;
  esac
  shift
done
exit $CODE"""

    def step(self, step: Mapping[str, Any], folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
        """One step as GitHub would run it: its inputs by name, else their defaults."""
        inputs = {name: entry["default"] for name, entry in ACTION["inputs"].items()}
        given = {
            name: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda found: {**inputs, **changed}[found[1]], text)
            for name, text in step["env"].items()
        }
        github = {name: str(folder / name.lower()) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "RUNNER_TEMP")}
        (folder / "runner_temp").mkdir(exist_ok=True)
        (folder / "script.sh").write_text(step["run"])
        variables = environment(folder / "bin", GITHUB_ACTION_PATH="/the action", **github, **given)
        variables |= {name: text for name, text in changed.items() if name.isupper()}
        return subprocess.run(
            [*BASH, "script.sh"], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )

    def measure(self, folder: Path, **changed: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        command(folder, "imgbench", self.FAKE)
        command(folder, "python", f'exec "{sys.executable}" "$@"')
        done = self.step(self.MEASURE, folder, **changed)
        return done, (folder / "runner_temp" / "arguments").read_text().splitlines()

    def test_a_regression_turns_the_step_red_and_leaves_its_files_where_they_are_uploaded(self, tmp_path: Path) -> None:
        done, arguments = self.measure(tmp_path, CODE="10")
        assert done.returncode == 10, done.stderr
        folder = tmp_path / "runner_temp" / "imgbench"
        assert (tmp_path / "github_output").read_text() == (
            f"exit-code=10\nfolder={folder}\ncomment={folder}/comment.md\nverdict=Red: 1 row is slower.\n"
        )
        upload = next(step for name, step in self.STEPS.items() if name.startswith("Upload"))
        assert upload["with"]["path"] == "${{ steps.measure.outputs.folder }}"
        assert upload["if"].startswith("${{ always()")
        assert sorted(path.name for path in folder.iterdir()) == [
            "badge.json", "comment.md", "comparison.json", "comparison.md", "junit.xml",
        ]  # fmt: skip
        options = parser().parse_args(arguments)
        assert (options.command, options.suite, options.base, options.head) == (
            "ab",
            "gate",
            ["ref=HEAD^"],
            ["ref=HEAD"],
        )
        assert (options.budget, options.strict, options.annotations) == ("10m", False, True)
        assert options.step_summary == tmp_path / "github_step_summary"

    @pytest.mark.parametrize("code", ["0", "14", "64"])
    def test_the_step_ends_with_the_commands_own_code(self, code: str, tmp_path: Path) -> None:
        done, _ = self.measure(tmp_path, CODE=code)
        assert done.returncode == int(code)

    def test_every_input_reaches_the_command_as_it_was_written(self, tmp_path: Path) -> None:
        hostile = 'a b "$(touch hacked)" `touch hacked`; touch hacked # \'x'
        done, arguments = self.measure(
            tmp_path, CODE="0", suite=hostile, base=hostile, head=hostile, budget="1h", strict="true",
            plugin="one\n\ntwo\n", arguments="--exit-zero\n--only=backend=eager\n", comment="false",
        )  # fmt: skip
        assert done.returncode == 0
        assert not (tmp_path / "hacked").exists()
        options = parser().parse_args(arguments)
        assert (options.suite, options.base, options.head) == (hostile, [hostile], [hostile])
        assert (options.budget, options.strict, options.plugin) == ("1h", True, ["one", "two"])
        assert (options.exit_zero, options.only, options.comment) == (True, "backend=eager", None)
        assert "comment=" not in (tmp_path / "github_output").read_text()

    def test_a_pull_request_is_compared_with_the_commit_it_grows_from(self, tmp_path: Path) -> None:
        command(tmp_path, "git", 'test "$*" = "merge-base origin/main HEAD" && echo c0ffee')
        _, arguments = self.measure(tmp_path, CODE="0", GITHUB_BASE_REF="main")
        assert parser().parse_args(arguments).base == ["ref=c0ffee"]

    def test_a_shallow_checkout_is_told(self, tmp_path: Path) -> None:
        command(tmp_path, "git", "exit 128")
        done = self.step(self.MEASURE, tmp_path, GITHUB_BASE_REF="main")
        assert done.returncode == 64
        assert "fetch-depth: 0" in done.stdout
        told = done.stdout.removeprefix("::error title=imgbench::")
        assert (tmp_path / "github_output").read_text() == (
            f"exit-code=64\nfolder={tmp_path}/runner_temp/imgbench\nverdict={told}"
        )

    @pytest.mark.parametrize("name", ["", ".", "..", "../..", "a/b", "a\nexit-code=0", "-rf", "$(touch hacked)"])
    def test_a_name_that_is_none_removes_nothing_and_writes_no_output_of_its_own(
        self, name: str, tmp_path: Path
    ) -> None:
        command(tmp_path, "imgbench", "exit 0")
        (tmp_path / "runner_temp").mkdir()
        (tmp_path / "runner_temp" / "of the runner").write_text("keep")
        done = self.step(self.MEASURE, tmp_path, name=name)
        assert done.returncode == 64
        assert (tmp_path / "runner_temp" / "of the runner").read_text() == "keep"
        assert (tmp_path / "github_output").read_text().startswith("exit-code=64\nfolder=\nverdict=No answer: ")
        assert len((tmp_path / "github_output").read_text().splitlines()) == 3
        assert not (tmp_path / "hacked").exists()

    def test_a_command_that_could_not_compare_is_an_annotation(self, tmp_path: Path) -> None:
        command(tmp_path, "imgbench", "exit 20")
        done = self.step(self.MEASURE, tmp_path)
        assert done.returncode == 20
        told = "No answer: imgbench ended with exit code 20 before it could compare."
        assert done.stdout == f"::error title=imgbench::{told}\n"
        assert (
            f"exit-code=20\nfolder={tmp_path}/runner_temp/imgbench\nverdict={told}\n"
            == (tmp_path / "github_output").read_text()
        )

    def test_files_of_an_earlier_run_are_not_taken_for_its_own(self, tmp_path: Path) -> None:
        self.measure(tmp_path, CODE="10")
        command(tmp_path, "imgbench", "exit 20")
        self.step(self.MEASURE, tmp_path)
        assert list((tmp_path / "runner_temp" / "imgbench").iterdir()) == []

    def test_the_project_is_installed_beside_imgbench(self, tmp_path: Path) -> None:
        command(tmp_path, "python", 'printf "%s|" "$@" >> installed; echo >> installed')
        step = self.STEPS["Install imgbench and what the project needs"]
        assert self.step(step, tmp_path).returncode == 0
        assert self.step(step, tmp_path, install="-r\na file.txt\n").returncode == 0
        pip = "-m|pip|install|--quiet|--disable-pip-version-check|"
        own = f"{pip}--constraint|/the action/constraints.txt|/the action|"
        assert (tmp_path / "installed").read_text().splitlines() == [own, own, f"{pip}-r|a file.txt|"]

    def test_inputs_and_outputs_are_declared_and_used_and_none_stands_in_a_script(self) -> None:
        text = (ROOT / "action.yml").read_text(encoding="utf-8")
        assert set(re.findall(r"inputs\.(\w+)", text)) == set(ACTION["inputs"])
        assert all(entry.keys() == {"description", "default"} for entry in ACTION["inputs"].values())
        assert not any("${{" in step.get("run", "") for step in self.STEPS.values())
        assert all(step["shell"] == "bash" for step in self.STEPS.values() if "run" in step)
        written = set(re.findall(r'echo "([a-z-]+)=', self.MEASURE["run"]))
        assert {f"${{{{ steps.measure.outputs.{name} }}}}" for name in written} == {
            entry["value"] for entry in ACTION["outputs"].values()
        }

    def test_the_actions_that_it_uses_are_pinned(self) -> None:
        text = (ROOT / "action.yml").read_text(encoding="utf-8")
        used = re.findall(r"^ *(?:- )?uses: (\S+)", text + PAGE, flags=re.MULTILINE)
        assert used
        assert [name for name in used if not re.fullmatch(r"actions/[a-z-]+@v\d+|OWNER/imgbench@COMMIT", name)] == []


def test_a_run_like_the_stored_ones_is_a_pass_only_because_it_is_alike(planted: Path) -> None:
    """The planted folder can turn red for the time alone: the same run, one value changed."""
    same, slow = (storage.load(planted / name / "now") for name in ("runs", "slow"))
    assert [replace(m, samples={}) for m in same.measurements] == [replace(m, samples={}) for m in slow.measurements]
    assert same.environment == slow.environment
