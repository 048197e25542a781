"""docs/ci.md says what is so: its workflows, its options and its commands."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ci_fixture import ACTION, BASH, PAGE, ROOT, command, environment, snippets

from benches.cli import parser
from benches.cli.commands import COMMANDS


def job(name: str) -> Any:
    (text,) = [text for text in snippets("yaml") if text.startswith(f"  {name}:")]
    return yaml.safe_load(text)[name]


def test_the_workflow_parses_and_gives_the_action_only_its_inputs() -> None:
    workflow, planted, comment = (yaml.safe_load(text) for text in snippets("yaml") if "runs-on" in text)
    job = {**workflow["jobs"], **planted, **comment}
    for name in ("speed", "planted"):
        (used,) = [step for step in job[name]["steps"] if "imgbench" in step.get("uses", "")]
        assert set(used["with"]) <= set(ACTION["inputs"])
        assert used["with"]["suite"].endswith(".yaml"), "a built-in suite runs none of the project's code"
        assert used["with"]["plugin"] == job["speed"]["steps"][-1]["with"]["plugin"]
        assert job[name]["steps"][0]["with"] == {"fetch-depth": 0}
    assert workflow["permissions"] == {"contents": "read"}
    assert job["comment"]["needs"] in job
    assert job["comment"]["steps"][0]["with"]["name"] == ACTION["inputs"]["name"]["default"]


def test_the_suite_and_the_plugin_of_a_project_are_taken(tmp_path: Path) -> None:
    (suite,) = [s for s in snippets("yaml") if s.startswith("# benchmarks/speed.yaml")]
    (plugin,) = [s for s in snippets("python") if s.startswith("# benchmarks/models.py")]
    for folder in ("benchmarks", "your_project"):
        (tmp_path / folder).mkdir()
    (tmp_path / "benchmarks" / "speed.yaml").write_text(suite)
    (tmp_path / "benchmarks" / "models.py").write_text(plugin)
    model = "super().__init__(torch.nn.Flatten(), torch.nn.Linear(3072, 10))"
    head = "import torch\nclass Model(torch.nn.Sequential):\n    num_classes = 10\n    def __init__(self):\n        "
    (tmp_path / "your_project" / "model.py").write_text(f"{head}{model}\n")
    program = """if True:
        from benches.cli import main
        assert main(["run", "benchmarks/speed.yaml", "--plugin", "benchmarks.models", "--dry-run"]) == 0
        from harness.registry import MODELS
        from harness.types import Case
        workload = MODELS["my_model"].build(Case(model="my_model", batch_size=8, image_size=32))
        (component,) = workload.components
        assert component.module(*component.inputs).shape == (8, 10)
    """
    variables = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 cases" in done.stdout


def test_the_planted_slow_down_is_a_commit_that_sleeps_and_only_red_is_right(tmp_path: Path) -> None:
    """The job's own scripts, in a repository with the class that the page speaks of."""
    steps = job("planted")["steps"]
    plant, check = [step for step in steps if "run" in step]
    (tmp_path / "your_project").mkdir()
    (tmp_path / "your_project" / "model.py").write_text("class Model:\n    def forward(self, x):\n        return x\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for words in (["init", "-q"], ["add", "--all"], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    subprocess.run([*BASH, "-c", plant["run"]], cwd=tmp_path, check=True)
    count = subprocess.run(["git", "rev-list", "--count", "HEAD"], cwd=tmp_path, check=True, capture_output=True)
    assert count.stdout == b"2\n"
    program = "import time, your_project.model as m; time.sleep = print; assert m.Model().forward(3) == 3"
    slept = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, capture_output=True)
    assert float(slept.stdout) > 0
    (used,) = [step for step in steps if "imgbench" in step.get("uses", "")]
    assert (used["with"]["base"], used["with"]["head"], used["continue-on-error"]) == (
        "ref=HEAD^",
        "ref=HEAD",
        True,
    )
    for code, status in (("10", 0), ("0", 1), ("12", 1), ("", 1)):
        done = subprocess.run([*BASH, "-c", check["run"]], env=os.environ | {"CODE": code}, check=False)
        assert done.returncode == status
    assert check["env"] == {"CODE": f"${{{{ steps.{used['id']}.outputs.exit-code }}}}"}


@pytest.mark.parametrize("known", ["", "17\n"])
def test_the_comment_is_made_once_and_then_rewritten(known: str, tmp_path: Path) -> None:
    (tmp_path / "comment.md").write_text("<!-- imgbench gate -->\nx\n")
    answer = f'case "$*" in *--paginate*) printf "{known}";; esac'
    command(tmp_path, "gh", f'echo "$MARKER $*" >> calls; {answer}')
    (script,) = [s["run"] for s in job("comment")["steps"] if "run" in s]
    variables = environment(tmp_path / "bin", GH_REPO="o/r", NUMBER="3")
    done = subprocess.run([*BASH, "-c", script], cwd=tmp_path, env=variables, check=False)
    assert done.returncode == 0
    last = (tmp_path / "calls").read_text().splitlines()[-1]
    patched = "api --method PATCH repos/o/r/issues/comments/17 --field body=@comment.md"
    assert last == f"<!-- imgbench gate --> {patched if known else 'pr comment 3 --body-file comment.md'}"


def test_every_option_that_writes_is_on_the_page() -> None:
    declared = ArgumentParser()
    COMMANDS["ab"].arguments(declared)
    group = next(g for g in declared._action_groups if g.title == "for CI")
    options = [option for action in group._group_actions for option in action.option_strings]
    assert len(options) == 7
    assert [option for option in options if f"`{option}" not in PAGE] == []


def test_the_command_for_any_other_ci_parses() -> None:
    (line,) = [s for s in snippets("sh") if s.startswith("imgbench ab")]
    words = line.replace("\\\n", " ").replace('"ref=$(git merge-base origin/main HEAD)"', "ref=x").split()
    assert parser().parse_args(words[1:]).json_file == Path("comparison.json")
