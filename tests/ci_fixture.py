"""The page for CI and the action, and commands to run what they hold, for their tests."""

from __future__ import annotations

import os
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "reports" / "CI.md").read_text(encoding="utf-8")
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
BASH = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]  # what `shell: bash` is on GitHub


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def command(folder: Path, name: str, script: str) -> Path:
    """An executable in `folder`/bin; gives that folder for the PATH."""
    (folder / "bin").mkdir(exist_ok=True)
    path = folder / "bin" / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path.parent


def environment(commands: Path, **more: str) -> dict[str, str]:
    """This process's variables without those of a CI that runs these tests, with `commands` first on the PATH."""
    own = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "MAKE", "PYTEST_"))}
    return own | {"PATH": f"{commands}{os.pathsep}{own['PATH']}"} | more
