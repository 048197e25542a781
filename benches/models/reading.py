"""Turns what a model library raises while it reads a folder into one line that names the file.

    with reading.by("diffusers", folder, parts): pipeline = StableDiffusionPipeline.from_pretrained(folder)

Libraries do not validate a configuration: a list in place of a number causes a TypeError that names neither file nor
field, and tokenizers raises a bare Exception. Out of memory and failures of the machine (a full disk, too many open
files) are not the folder's fault and pass through.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benches.models import folders
from harness import causes
from harness.causes import one_line
from harness.measuring.out_of_memory import is_out_of_memory
from harness.reasons import Reason


@contextmanager
def by(library: str, folder: Path, index: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Raises FolderError if the library cannot read `folder`; `index` is its model_index.json, if it has parts."""
    try:
        yield
    except folders.FolderError:
        raise
    except Exception as error:  # whatever its type, it concerns the files
        if is_out_of_memory(error) or causes.of_error(error) is not None:
            raise
        said = " ".join(str(error).split()) if isinstance(error, ValueError | OSError) else one_line(error)
        where = folder if index is None else _at_fault(folder, index)
        told = {"at": str(where), "library": library, "error": said}
        raise folders.FolderError(Reason("library_cannot_load", told)) from None


def _at_fault(folder: Path, index: Mapping[str, Any]) -> Path:
    """The first part that cannot be loaded by itself either; the index if each of them can."""
    for name, entry in index.items():
        if not isinstance(entry, list) or len(entry) != 2 or not (folder / name).is_dir():
            continue
        library, class_name = entry
        try:
            getattr(importlib.import_module(library), class_name).from_pretrained(folder / name, local_files_only=True)
        except Exception:  # only the part matters here
            return folder / name
    return folder / folders.INDEX
