"""Models that people bring: found by name or by file, and one clear line for each thing that the harness cannot use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import benches
from benches.cli import main
from benches.failures import UsageError
from harness import storage, suite
from harness.backends.onnx import export as onnx_export
from harness.causes import one_line
from harness.numerics import precision
from harness.numerics.precision import NotOneTensor
from harness.registry import MODELS, BadEntry, DuplicateName, ModelRegistry, built
from harness.types import Case, Component, Model

REPOSITORY = Path(__file__).parent.parent
GOOD: dict[str, Any] = {"family": "f", "description": "d", "axes": {}}
FILE = """
import torch
from harness.registry import MODELS
from benches.models.workloads import classifier_workload

class Net(torch.nn.Module):
    num_classes = 3
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Linear(3, 3)
    def forward(self, x):
        return self.head(x.mean((2, 3)))

@MODELS.add("by_path", family="f", description="d", axes={}, libraries=())
def build(case):
    torch.manual_seed(0)
    return classifier_workload(Net(), case, torch.randn(case.batch_size, 3, 8, 8), weights_hash="x")
"""


@pytest.mark.parametrize(
    ("name", "description", "message"),
    [
        (
            "m",
            GOOD | {"axes": {"resolution": 224}},
            "model 'm': axes: 'resolution' is not an axis of imgbench; a model may",
        ),
        ("m", GOOD | {"axes": ["image_size"]}, "axes: ['image_size'] must be a mapping"),
        ("m", GOOD | {"weights": ()}, "weights: () must be a tuple of keywords"),
        ("m", GOOD | {"weights": "random"}, "weights: 'random' must be a tuple of keywords"),
        ("m", GOOD | {"image_size_multiple": 0}, "image_size_multiple: 0 must be a whole number of 1 or more"),
        ("m", GOOD | {"max_image_size": "big"}, "max_image_size: 'big' must be a whole number"),
        ("m", GOOD | {"familly": "f"}, "unknown field 'familly'; did you mean 'family'?"),
        ("m", {"family": "f", "axes": {}}, "'description' is missing; a model needs family, description, axes"),
        ("two\nlines", GOOD, "a model's name must be text on one line, not 'two\\nlines'"),
        ("\x1b[31m", GOOD, "a model's name must be text on one line"),
        ("", GOOD, "a model's name must be text on one line"),
        (3, GOOD, "a model's name must be text on one line"),
    ],
)
def test_a_registration_that_no_suite_can_use_is_refused(name: Any, description: dict, message: str) -> None:
    with pytest.raises(BadEntry) as caught:
        ModelRegistry("model").add(name, **description)(lambda case: None)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["<b>x</b>", "`é😀|", "a b", "[red]x[/red]"])
def test_any_name_on_one_line_is_a_name(name: str) -> None:
    registry = ModelRegistry("model")
    registry.add(name, **GOOD)(lambda case: None)
    assert registry[name].name == name
    with pytest.raises(DuplicateName, match="registered twice"):
        registry.add(name, **GOOD)(lambda case: None)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"image_size": "big"}, "image_size: 'big' must be a whole number"),
        ({"num_steps": 0}, "num_steps: 0 must be a whole number"),
        ({"scheduler": "nope"}, "unknown scheduler 'nope'"),
        ({"prompt": 3}, "prompt: 3 must be text"),
    ],
)
def test_a_default_that_does_not_fit_is_the_models_fault(
    axes: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(name="odd", build=lambda case: None, family="f", description="d", axes=axes)  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(MODELS._entries, "odd", model)
    with pytest.raises(suite.SuiteError) as caught:
        suite.parse("cases: [{model: odd}]")
    assert "the default of model 'odd' is not valid: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("returned", "named"), [(None, "None"), ((1, 2), "an object of the type tuple")])
def test_a_build_function_that_makes_no_workload_says_so(
    returned: object, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(name="odd", build=lambda case: returned, family="f", description="d", axes={})  # type: ignore[arg-type, return-value]
    monkeypatch.setitem(MODELS._entries, "odd", model)
    with pytest.raises(
        BadEntry, match=f"the build function of the model 'odd' returns {named} instead of a .*Workload"
    ):
        built(Case(model="odd"))


@dataclass
class Output:
    """As transformers' outputs are."""

    logits: torch.Tensor


class Returning(torch.nn.Module):
    """A linear layer, and what `wrap` makes of its output."""

    def __init__(self, wrap: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.head = torch.nn.Linear(2, 2)
        self.wrap = wrap

    def forward(self, x: torch.Tensor) -> Any:
        return self.wrap(self.head(x))


WRAPPED = [
    (lambda y: (y, y * 2), "a tuple of 2", "`return self.network(*inputs)[0]`"),
    (lambda y: (y,), "a tuple of 1", "`return self.network(*inputs)[0]`"),
    (lambda y: [y, y], "a list of 2", "`return self.network(*inputs)[0]`"),
    (lambda y: {"logits": y, "loss": None}, "a dict with the keys logits, loss", "(*inputs)['logits']`"),
    (lambda y: {"sample": y}, "a dict with the keys sample", "(*inputs)['sample']`"),
    (lambda y: None, "None", "let its forward return the tensor"),
    (lambda y: Output(logits=y), "an object of the type Output", "`return self.network(*inputs).logits`"),
]


@pytest.mark.parametrize(("wrap", "kind", "mend"), WRAPPED)
def test_a_network_that_returns_something_else_than_one_tensor_is_told_how_to_be_wrapped(
    wrap: Callable[[torch.Tensor], Any], kind: str, mend: str
) -> None:
    with pytest.raises(NotOneTensor) as caught:
        precision.bordered(Returning(wrap), "fp32", "cpu")(torch.zeros(1, 2))
    assert str(caught.value).startswith(f"the network Returning returns {kind} but it must return one tensor: ")
    assert mend in str(caught.value)
    assert "\n" not in str(caught.value)
    assert one_line(caught.value) == str(caught.value)[:400], "no class is named"


@pytest.mark.parametrize("number", [0, 1, 3, 5])
def test_an_exporter_does_not_take_the_first_of_several_outputs(number: int, tmp_path: Path) -> None:
    wrap, kind, _ = WRAPPED[number]
    component = Component(name="classifier", module=Returning(wrap), inputs=(torch.zeros(1, 2),))
    with pytest.raises(NotOneTensor, match=f"the network Returning returns {kind}"):
        onnx_export._write(component, "fp32", tmp_path / "model.onnx", ())


def test_a_network_of_one_tensor_is_exported(tmp_path: Path) -> None:
    component = Component(name="classifier", module=Returning(lambda y: y), inputs=(torch.zeros(1, 2),))
    onnx_export._write(component, "fp32", tmp_path / "model.onnx", ())
    assert (tmp_path / "model.onnx").exists()


def imgbench(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benches.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=folder)


@pytest.mark.slow
def test_a_plugin_may_be_given_by_its_path_and_a_run_goes_on_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "my_models_by_path.py").write_text(FILE)
    (tmp_path / "s.yaml").write_text(
        "name: s\nprotocol: {replicates: 1, warmup_min_s: 0.01, warmup_max_s: 0.05, min_samples: 2, "
        "min_sample_time_s: 0.01, target_interval: null, contended_retries: 0}\ncases: [{model: by_path}]\n"
    )
    done = imgbench(tmp_path, "run", "s.yaml", "--plugin", "./own/my_models_by_path.py", "--no-report")
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    run = storage.load(folder)
    assert run.environment["plugins"] == [str(tmp_path / "own" / "my_models_by_path.py")]
    assert "my_models_by_path" in run.environment["sources"]
    (folder / "measurements.jsonl").write_text("")
    again = imgbench(Path("/"), "run", "--resume", str(folder), "--no-report")
    assert again.returncode == 0, again.stdout + again.stderr
    assert [m.status for m in storage.load(folder).measurements] == ["ok"]


@pytest.mark.parametrize(
    ("plugin", "source", "message"),
    [
        ("./absent_plugin.py", None, "no such Python file; give the path of a .py file, or a module's name"),
        (
            "absent_plugin",
            None,
            "No module named 'absent_plugin'; a file may be given by its path: --plugin ./my_models",
        ),
        ("./dotted.name.py", "", "a module's name has no '.' in it; rename the file"),
        ("./json.py", "", "another module has the name 'json'"),
        ("./raises_plugin.py", "raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("./exits_plugin.py", "raise SystemExit(3)", "SystemExit: 3"),
        ("./syntax_plugin.py", "def", "SyntaxError"),
        (
            "./twice_plugin.py",
            "from harness.registry import MODELS\n"
            "for _ in range(2):\n    MODELS.add('twice', family='f', description='d', axes={})(print)\n",
            "model 'twice' is registered twice",
        ),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_one_line(
    plugin: str,
    source: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    if source is not None:
        Path(plugin).write_text(source)
    assert main(["list", "models", "--plugin", plugin]) == 64
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.err.startswith("imgbench: plugin ")


def test_a_module_is_named_as_workers_import_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert benches.modules(["planted", "./own/mine.py", "own.mine"]) == ("planted", "mine", "own.mine")
    assert benches.in_full("./own/mine.py") == str(tmp_path / "own" / "mine.py")
    assert benches.in_full("own.mine") == "own.mine"
    assert benches.folders(["planted", "./own/mine.py"]) == (str(tmp_path / "own"),)
    with pytest.raises(UsageError):
        benches.load_plugins("./own/mine.py")
