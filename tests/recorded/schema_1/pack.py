"""Packs the planted and the measured half into corpus.tar.xz.

    PYTHONPATH=OLD python pack.py PLANTED MEASURED [FOUND=SHOWN ...]     # a path of the machine, and what stands for it

The measured runs become stored sessions and get their stored decisions here, by the commands of the old version.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tarfile
import tempfile
from pathlib import Path

from benches import cli

HERE = Path(__file__).parent
RUN = ("run.json", "measurements.jsonl", "controls.jsonl", "suite.yaml")
PAIRED = ("ab.json", "blocks.jsonl", "preflight.jsonl", "comparison.json")


def main() -> None:
    planted, measured = Path(sys.argv[1]), Path(sys.argv[2])
    paths = [text.split("=", 1) for text in sys.argv[3:]]
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        shutil.copytree(planted, root, dirs_exist_ok=True)
        for folder in sorted(path for path in measured.iterdir() if path.is_dir()):
            (run,) = folder.iterdir()
            kind = "paired" if (run / "ab.json").exists() else "runs"
            copied(run, root / kind / folder.name.replace("ab-measured", "measured"), paths)
        stored(root)
        with tarfile.open(HERE / "corpus.tar.xz", "w:xz", preset=9) as packed:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    packed.add(path, str(path.relative_to(root)), filter=anonymous)


def copied(run: Path, to: Path, paths: list[list[str]]) -> None:
    """The files of a run that decide, with the paths of the machine replaced."""
    to.mkdir()
    for name in (*RUN, *PAIRED):
        if (run / name).exists():
            text = (run / name).read_text(encoding="utf-8")
            for found, shown in paths:
                text = text.replace(found, shown)
            text = re.sub("/tmp/imgbench-ab-[a-z0-9_]+", "/tmp/imgbench-ab", text)
            (to / name).write_text(text, encoding="utf-8")


def stored(root: Path) -> None:
    """The measured sessions as a store, and every other measured run compared with it."""
    store, runs = root / "stores" / "measured", root / "runs"
    store.mkdir()
    for number in range(1, 5):
        save = ["baseline", "save", str(runs / f"session-{number}"), "--reason", "measured", "--force"]
        assert cli.main([*save, "--store", str(store)]) == 0
    compared = json.loads((root / "compared.json").read_text())
    planted = {entry["run"] for entry in compared.values()}
    for run in sorted(path for path in runs.iterdir() if path.name not in planted):
        compared[run.name] = {"run": run.name, "store": "measured", "options": []}
        cli.main(["compare", str(run), "--store", str(store), "--budget", "0"])
    (root / "compared.json").write_text(json.dumps(compared, indent=1))


def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o644
    return entry


if __name__ == "__main__":
    main()
