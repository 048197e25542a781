"""Parses the arms that a user writes, and proves that each ran its own code.

    ref=main                     the project under test at a git ref, installed into its own virtual environment
    python=/path/bin/python      another interpreter, so other versions of torch or diffusers
    env:OMP_WAIT_POLICY=ACTIVE   a variable
    backend=torch_compile        another value of an axis of every case
    inject:busy=0.05             an injected slow-down (harness/measuring/injection.py), to test whether the gate
                                 detects it

The items of an arm are separated by commas. A backslash escapes a comma inside a value. An empty arm changes nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from benches.ab.arm_environments import check_variable, installable, interpreter, own_packages, ref_environment
from benches.failures import UsageError
from harness import strict_yaml
from harness.measuring.injection import InjectionError
from harness.measuring.injection import parse as parse_injection
from harness.numerics.optimizations import canonical
from harness.paired.arms import Arm
from harness.paired.hosts import ArmFailed
from harness.registry import MODELS, nearest
from harness.suite import check
from harness.types import AXES, Case
from harness.weights import keywords, resolved

OUR_ROOT: Final = Path(__file__).resolve().parents[2]
OURS: Final = ("harness", "benches")  # the packages that an arm's host needs
HOST: Final = Path("harness/arm_host.py")


@dataclass(frozen=True, kw_only=True)
class ArmRequest:
    """A parsed arm, before its environment is made."""

    name: str
    text: str
    python: str | None = None
    ref: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    injections: tuple[str, ...] = ()


def parse(name: str, text: str) -> ArmRequest:
    """The arm that `text` describes. Raises UsageError."""
    try:
        found = _found(_items(text))
        injections = tuple(k.removeprefix("inject:") for k in found if k.startswith("inject:"))
        for injection in injections:
            parse_injection(injection)
        variables = {k.removeprefix("env:"): v for k, v in found.items() if k.startswith("env:")}
        for variable in variables:
            check_variable(variable)
        axes = {k: v for k, v in found.items() if not k.startswith(("env:", "inject:")) and k not in {"ref", "python"}}
        overrides = {axis: _value(axis, value) for axis, value in axes.items()}
    except (UsageError, InjectionError) as error:
        raise UsageError(f"--{name}: {error}") from None
    return ArmRequest(
        name=name,
        text=text.strip(),
        python=found.get("python"),
        ref=found.get("ref"),
        environment=variables,
        overrides=overrides,
        injections=injections,
    )


def _found(items: list[str]) -> dict[str, str]:
    """The value of each item by its name. The name of an injection is its whole text, because one kind may be given for
    several rows."""
    found: dict[str, str] = {}
    for item in items:
        key, sign, value = item.partition("=")
        key = item if item.startswith("inject:") else key.strip()
        if not sign or not key or not (value or key.startswith("env:")):
            raise UsageError(f"{item!r} must be name=value (ref=, python=, env:NAME=, inject:KIND= or an axis)")
        if key in found:
            raise UsageError(f"{key} is given twice")
        found[key] = value
    return found


def _value(axis: str, text: str) -> Any:
    """The value, parsed as in a suite's YAML."""
    if axis == "model":
        raise UsageError("model: an arm cannot change the model, because both arms must do the same work")
    if axis not in AXES:
        known = [*(a for a in AXES if a != "model"), "ref", "python", "env:NAME", "inject:KIND"]
        raise UsageError(f"unknown item {axis!r}; {nearest(axis, known)}")
    try:
        value = strict_yaml.load(text)
    except strict_yaml.NotYaml as error:
        raise UsageError(f"{axis}={text}: {error}") from None
    if axis == "optimizations":
        try:
            return canonical(value)
        except ValueError as error:
            raise UsageError(f"{axis}={text}: {error}") from None
    return float(value) if axis == "guidance_scale" and type(value) is int else value


def project_here() -> Path:
    """The project in which the command is called: this folder if it can be installed, else the root of its
    repository."""
    here = Path.cwd().resolve()
    if installable(here):
        return here
    try:
        done = subprocess.run(["git", "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=False)
    except OSError:
        return here
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else here


def checked(request: ArmRequest, cases: tuple[Case, ...]) -> None:
    """Raises UsageError for the first axis of the arm that does not fit one of the cases, and for a slow-down that
    applies to none of them."""
    for injection in map(parse_injection, request.injections):
        if not any(injection.applies_to(case.id) for case in cases):
            raise UsageError(f"--{request.name}: inject: no row of the suite has the id {injection.pattern}")
    for case in cases:
        # `check` takes None as the model's default, which an override does not use.
        defaults = MODELS[case.model].axes
        for axis in (a for a, v in request.overrides.items() if v is None and defaults.get(a, a) is not None):
            raise UsageError(f"--{request.name}: {axis}: no value; leave it out to keep the suite's")
        if reason := check(case.with_(**request.overrides)):
            raise UsageError(f"--{request.name}: {reason}")


def in_full(weights: str, cases: Sequence[Case]) -> str:
    """The absolute path of a folder of weights, because an arm's processes have another working directory. A keyword of
    one of the cases' models stays as it is."""
    known = any(weights in keywords(MODELS[case.model]) for case in cases)
    return weights if known else str(resolved(weights))


def all_in_full(requests: Sequence[ArmRequest], cases: Sequence[Case]) -> Iterator[ArmRequest]:
    """The requests, with absolute paths of the folders of weights."""
    for request in requests:
        axes = request.overrides
        named = {"weights": in_full(axes["weights"], cases)} if "weights" in axes else {}
        yield replace(request, overrides={**axes, **named})


def prepare(request: ArmRequest, project: Path, cache: Path, say: Any) -> Arm:
    """The arm, ready to be started. A git ref is installed first, or taken from `cache`. Raises UsageError, and
    ArmFailed if the installation fails."""
    python = interpreter(request.python, request.name) if request.python else sys.executable
    folder = commit = None
    if request.ref is not None:
        try:
            made = ref_environment(project, request.ref, python, cache, say)
        except ArmFailed as error:
            raise ArmFailed(f"--{request.name}: ref={request.ref}: {error}") from None
        python, folder, commit = made.python, str(made.folder), made.commit
        _check_names(request, made.folder)
    return Arm(
        name=request.name,
        text=request.text,
        python=python,
        environment=dict(request.environment),
        overrides=dict(request.overrides),
        injections=request.injections,
        folder=folder,
        commit=commit,
        packages=own_packages(Path(folder)) if folder else (),
    )


def same_code(requests: tuple[ArmRequest, ArmRequest], base: Arm, head: Arm) -> str | None:
    """Why there is nothing to compare, if both arms name the same commit or interpreter. None if the arms differ, or if
    one of them names neither (two unchanged arms are an A/A run)."""
    if not all(request.ref or request.python for request in requests):
        return None
    if replace(base, name="", text="") != replace(head, name="", text=""):
        return None
    what = f"commit ({base.commit[:10]})" if base.commit else f"interpreter ({base.python})"
    return f"both arms are the same {what}, and nothing else differs"


def _check_names(request: ArmRequest, tree: Path) -> None:
    """Raises UsageError if a package of the project has the name of an imgbench package, or if the ref is a version of
    imgbench without `ab`."""
    clash = sorted({*OURS} & {*own_packages(tree)})
    if clash and not _is_imgbench(tree):
        raise UsageError(
            f"--{request.name}: the project's package {clash[0]} has the same name as a package of imgbench"
        )
    if clash and not (tree / HOST).exists():
        raise UsageError(
            f"--{request.name}: ref={request.ref} is an older imgbench without `imgbench ab`: it has no {HOST}"
        )


def _is_imgbench(tree: Path) -> bool:
    return (tree / "harness/types.py").exists() and any(tree.glob("benches/cli*"))


def launch_environment(arm: Arm, project: Path, links: Path) -> dict[str, str]:
    """All environment variables of the arm's interpreter: those of this process, without the project's folders on
    PYTHONPATH, and the arm's own.

    imgbench's packages are on PYTHONPATH, so that an interpreter without imgbench can measure. They are linked into the
    folder `links`, which has nothing else. Their own folder may be a whole site-packages, which would come before the
    arm's packages. If the project under test is imgbench itself, the arm's own tree is used instead.
    """
    # Relative entries refer to this folder, and the arm's processes have another one.
    entries = [str(Path(p).absolute()) for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    if arm.folder is not None or arm.python != sys.executable:
        entries = [p for p in entries if not Path(p).resolve().is_relative_to(project.resolve())]
    if arm.folder is not None and not installable(Path(arm.folder)):
        entries.insert(0, arm.folder)
    itself = arm.folder is not None and _is_imgbench(Path(arm.folder))
    return {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "PYTHONPATH": os.pathsep.join([str(arm.folder) if itself else str(_linked(links)), *entries]),
        **arm.environment,
    }


def _linked(links: Path) -> Path:
    links.mkdir(parents=True, exist_ok=True)
    for name in OURS:
        if not (links / name).exists():
            (links / name).symlink_to(OUR_ROOT / name, target_is_directory=True)
    return links


def refusal(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> str | None:
    """Why an arm did not run its own code; None if both did."""
    for arm, loaded in ((base, base_loaded), (head, head_loaded)):
        for name, value in arm.environment.items():
            if loaded["variables"].get(name) != value:
                return f"the {arm.name} arm's worker sees {name}={loaded['variables'].get(name)!r}, not {value!r}"
        if Path(loaded["python"]).absolute() != Path(arm.python).absolute():
            return f"the {arm.name} arm runs {loaded['python']}, not {arm.python}"
        if arm.folder is not None and (reason := foreign(arm, Path(arm.folder).parent, loaded["packages"])):
            return reason
    return None


def foreign(arm: Arm, place: Path, packages: Mapping[str, Any]) -> str | None:
    """Why the project's packages are not those of the arm's own environment, which is in `place`; None if they are.

    A folder of the tree that the project does not install may be found elsewhere. What the project installs may not.
    """
    paths = {name: Path(packages[name]["path"]) for name in arm.packages if packages.get(name)}
    foreign = {name: path for name, path in paths.items() if not path.resolve().is_relative_to(place.resolve())}
    for name, path in foreign.items():
        path_of = name.replace(".", "/")
        installed = [*place.glob(f"venv/lib/*/*/{path_of}"), *place.glob(f"venv/lib/*/*/{path_of}.*")]
        if installed or len(foreign) == len(paths):
            return f"the {arm.name} arm loaded {name} from {path}, not from its own environment ({place})"
    if not paths:
        names = ", ".join(arm.packages) or "it has no package"
        return f"the {arm.name} arm cannot import the project of {arm.commit} ({names})"
    return None


def proof(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> list[str]:
    """One line for each arm about what it loaded, and one line about the differences."""
    lines = [_loaded_line(arm, loaded) for arm, loaded in ((base, base_loaded), (head, head_loaded))]
    differ = differences(base, head, base_loaded, head_loaded)
    return [*lines, f"the arms differ in {'; '.join(differ)}" if differ else "the arms are the same (A/A)"]


def _loaded_line(arm: Arm, loaded: Mapping[str, Any]) -> str:
    at = f" at {arm.commit[:10]}" if arm.commit else ""
    source = ", ".join(f"{n} {p['sha256']}" for n, p in loaded["packages"].items() if p)
    torch = loaded["versions"].get("torch", "absent")
    return f"{arm.name}{at}: Python {loaded['python_version']}, torch {torch}; source {source}"


def differences(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> list[str]:
    """The differences between the two arms, in words."""
    found = []
    for key in ("versions", "variables"):
        there, here = base_loaded[key], head_loaded[key]
        for name in dict.fromkeys([*there, *here]):
            if there.get(name) != here.get(name):
                found.append(f"{name}: {there.get(name)} against {here.get(name)}")
    for name in dict.fromkeys([*base_loaded["packages"], *head_loaded["packages"]]):
        hashes = [(arm["packages"].get(name) or {}).get("sha256") for arm in (base_loaded, head_loaded)]
        if hashes[0] != hashes[1]:
            found.append(f"the source of {name}: {hashes[0]} against {hashes[1]}")
    if base_loaded["python_version"] != head_loaded["python_version"]:
        found.append(f"Python: {base_loaded['python_version']} against {head_loaded['python_version']}")
    for name in dict.fromkeys([*base.overrides, *head.overrides]):
        if base.overrides.get(name) != head.overrides.get(name):
            found.append(
                f"{name}: {base.overrides.get(name, 'as in the suite')} against "
                f"{head.overrides.get(name, 'as in the suite')}"
            )
    if base.injections != head.injections:
        found.append(
            f"the injection: {', '.join(base.injections) or 'none'} against {', '.join(head.injections) or 'none'}"
        )
    return found


def _items(text: str) -> list[str]:
    """The comma-separated items. A backslash escapes a comma."""
    parts = re.split(r"(?<!\\),", text)
    return [part.replace("\\,", ",").strip() for part in parts if part.strip()]
