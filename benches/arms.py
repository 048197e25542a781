"""Arms as a user writes them, and the proof that each ran its own code.

    ref=main                     the project under test at a git ref, installed into an environment of its own
    python=/path/bin/python      another interpreter, so other versions of torch or diffusers
    env:OMP_NUM_THREADS=1        a variable
    backend=torch_compile        another value of an axis of every case
    inject:busy=0.05             a deliberate slow-down (harness/injection.py), to see whether the gate sees it

Items are separated by commas, in any mix; a comma inside a value is written with a backslash before it. An empty text
is things as they are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from benches.arm_environments import (
    installable,
    interpreter,
    own_packages,
    package_folder,
    ref_environment,
)
from benches.failures import UsageError
from harness.arms import Arm, tree_digest
from harness.injection import InjectionError
from harness.injection import parse as parse_injection
from harness.registry import nearest
from harness.suite import check
from harness.types import AXES, Case

OUR_ROOT: Final = Path(__file__).resolve().parent.parent
OURS: Final = ("harness", "benches")


@dataclass(frozen=True, kw_only=True)
class ArmRequest:
    """A parsed arm, before anything is made."""

    name: str
    text: str
    python: str | None = None
    ref: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    injections: tuple[str, ...] = ()


def parse(name: str, text: str) -> ArmRequest:
    """The arm that `text` asks for. Raises UsageError."""
    found: dict[str, str] = {}
    injections: list[str] = []
    for item in _items(text):
        key, sign, value = item.partition("=")
        key = key.strip()
        if not sign or not key or not value:
            raise UsageError(
                f"--{name}: {item!r} must be name=value (ref=, python=, env:NAME=, inject:KIND= or an axis)"
            )
        if key.startswith("inject:"):
            injections.append(f"{key.removeprefix('inject:')}={value}")
        elif key in found:
            raise UsageError(f"--{name}: {key} is given twice")
        else:
            found[key] = value
    for injection in injections:
        try:
            parse_injection(injection)
        except InjectionError as error:
            raise UsageError(f"--{name}: {error}") from None
    variables = {k.removeprefix("env:"): v for k, v in found.items() if k.startswith("env:")}
    axes = {k: v for k, v in found.items() if k not in {"ref", "python"} and not k.startswith("env:")}
    for axis in axes:
        if axis not in AXES:
            known = [*AXES, "ref", "python", "env:NAME", "inject:KIND"]
            raise UsageError(f"--{name}: unknown item {axis!r}; {nearest(axis, known)}")
    return ArmRequest(
        name=name,
        text=text.strip(),
        python=found.get("python"),
        ref=found.get("ref"),
        environment=variables,
        overrides={axis: yaml.safe_load(value) for axis, value in axes.items()},
        injections=tuple(injections),
    )


def checked(request: ArmRequest, cases: tuple[Case, ...]) -> None:
    """Raises UsageError where the arm's axes fit none of the cases, or not all of them."""
    for case in cases:
        if reason := check(case.with_(**request.overrides)):
            raise UsageError(f"--{request.name}: {reason}")


def prepare(request: ArmRequest, project: Path, cache: Path, say: Any) -> Arm:
    """The arm ready to be started; a git ref is installed first, or taken from `cache`. Raises UsageError."""
    python = interpreter(request.python, request.name) if request.python else sys.executable
    folder = commit = None
    if request.ref is not None:
        made = ref_environment(project, request.ref, python, cache, say)
        python, folder, commit = made.python, str(made.folder), made.commit
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


def launch_environment(arm: Arm, project: Path) -> dict[str, str]:
    """All variables of the arm's interpreter: ours, without the project's own folders on PYTHONPATH, and the arm's.

    Our packages come by PYTHONPATH, so that an interpreter without imgbench can measure. PYTHONPATH stands before
    site-packages: where the project under test is imgbench itself, the arm's own tree is put there instead.
    """
    roots = {project.resolve(), project.resolve() / "src"}
    kept = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p).resolve() not in roots]
    if arm.folder is not None and not installable(Path(arm.folder)):
        kept.insert(0, arm.folder)
    ours = Path(arm.folder) if arm.folder is not None and set(OURS) <= set(arm.packages) else OUR_ROOT
    return {
        **os.environ,
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),
        "PYTHONPATH": os.pathsep.join([str(ours), *kept]),
        **arm.environment,
    }


def refusal(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> str | None:
    """Why an arm did not run its own code; None where each did."""
    for arm, loaded in ((base, base_loaded), (head, head_loaded)):
        for name, value in arm.environment.items():
            if loaded["variables"].get(name) != value:
                return f"the {arm.name} arm's worker sees {name}={loaded['variables'].get(name)!r}, not {value!r}"
        if Path(loaded["python"]).absolute() != Path(arm.python).absolute():
            return f"the {arm.name} arm runs {loaded['python']}, not {arm.python}"
        if arm.folder is not None and not any(loaded["packages"].get(name) for name in arm.packages):
            names = ", ".join(arm.packages) or "it has no package"
            return f"the {arm.name} arm cannot import the project of {arm.commit} ({names})"
    if base.commit and head.commit and base.commit != head.commit:
        return _same_source(base, head, base_loaded, head_loaded)
    return None


def _same_source(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> str | None:
    """Two commits whose packages differ on disk, and yet the same source was loaded."""
    for name in sorted(set(base.packages) & set(head.packages)):
        there, here = (tree_digest(package_folder(Path(str(arm.folder)), name)) for arm in (base, head))
        loaded = [side["packages"].get(name) for side in (base_loaded, head_loaded)]
        if there != here and loaded[0] and loaded[1] and loaded[0]["sha256"] == loaded[1]["sha256"]:
            return (
                f"package {name} differs between the refs, but both arms loaded the same source ({loaded[0]['path']})"
            )
    return None


def proof(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> list[str]:
    """One line an arm on what it loaded, and one on what differs."""
    lines = [_told(arm, loaded) for arm, loaded in ((base, base_loaded), (head, head_loaded))]
    differ = differences(base, head, base_loaded, head_loaded)
    return [*lines, f"arms differ in: {'; '.join(differ)}" if differ else "arms are the same (A/A)"]


def _told(arm: Arm, loaded: Mapping[str, Any]) -> str:
    at = f" at {arm.commit[:10]}" if arm.commit else ""
    source = ", ".join(f"{n} {p['sha256']}" for n, p in loaded["packages"].items() if p)
    torch = loaded["versions"].get("torch", "absent")
    return f"{arm.name}{at}: Python {loaded['python_version']}, torch {torch}; source {source}"


def differences(base: Arm, head: Arm, base_loaded: Mapping[str, Any], head_loaded: Mapping[str, Any]) -> list[str]:
    """In what the two arms differ, in words."""
    found = []
    for key in ("versions", "variables"):
        there, here = base_loaded[key], head_loaded[key]
        for name in dict.fromkeys([*there, *here]):
            if there.get(name) != here.get(name):
                found.append(f"{name} {there.get(name)} against {here.get(name)}")
    for name in dict.fromkeys([*base_loaded["packages"], *head_loaded["packages"]]):
        hashes = [(side["packages"].get(name) or {}).get("sha256") for side in (base_loaded, head_loaded)]
        if hashes[0] != hashes[1]:
            found.append(f"source of {name} {hashes[0]} against {hashes[1]}")
    if base_loaded["python_version"] != head_loaded["python_version"]:
        found.append(f"Python {base_loaded['python_version']} against {head_loaded['python_version']}")
    for name in dict.fromkeys([*base.overrides, *head.overrides]):
        if base.overrides.get(name) != head.overrides.get(name):
            found.append(
                f"{name} {base.overrides.get(name, 'as in the suite')} against "
                f"{head.overrides.get(name, 'as in the suite')}"
            )
    if base.injections != head.injections:
        found.append(
            f"injected {', '.join(base.injections) or 'nothing'} against {', '.join(head.injections) or 'nothing'}"
        )
    return found


def _items(text: str) -> list[str]:
    """The comma-separated items; a backslash keeps a comma."""
    parts = re.split(r"(?<!\\),", text)
    return [part.replace("\\,", ",").strip() for part in parts if part.strip()]
