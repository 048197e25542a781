"""ONNX Runtime's real CUDA provider on a machine without a GPU: the libraries that it links are stubs, compiled here.

The stubs are generated from what the provider itself needs. `nm` lists the functions with the library and version of
each. The names of cuDNN's functions, which the provider looks up by name, are in its file. All functions return 0;
those that create something return a handle. `cuda_stub.c` has the few functions of the runtime that must do more.
Sessions open and nodes are placed, but nothing is computed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import onnxruntime
import pytest

SOURCE: Final = Path(__file__).with_name("cuda_stub.c")
SESSIONS: Final = Path(__file__).with_name("cuda_stub_sessions.py")
RUNTIME: Final = "libcudart.so.13"  # the version whose interface cuda_stub.c declares
DRIVER: Final = "libcuda.so.1"  # its functions are named without a library
CUDNN: Final = "libcudnn.so.9"
UNUSED: Final = "libcurand.so.10"  # linked, but none of its functions is called
LINKED: Final = re.compile(r" U (cu\w+|__cuda\w+)(?:@(lib\w+\.so\.\d+))?$", re.MULTILINE)
LOOKED_UP: Final = re.compile(rb"cudnn[A-Z][A-Za-z0-9_]+")
CREATES: Final = re.compile(r"Create(_v2|WithFlags|\w*Descriptor)?$")


def provider_library() -> Path | None:
    """The CUDA provider of the installed onnxruntime; None where it has none."""
    found = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    return found if found.is_file() else None


def compiled(folder: Path) -> Path:
    """`folder` with the stubs in it; skips the test, with the reason, where they cannot be had."""
    gcc, nm, provider = shutil.which("gcc"), shutil.which("nm"), provider_library()
    if gcc is None or nm is None:
        pytest.skip("compiling stubs of CUDA's libraries needs gcc and nm")
    if provider is None:
        pytest.skip("the installed onnxruntime has no CUDA provider (the package is onnxruntime-gpu, for x86-64)")
    if not hasattr(onnxruntime.InferenceSession, "get_provider_graph_assignment_info"):
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not report where it places nodes")
    told = subprocess.run([nm, "-D", "--undefined-only", str(provider)], capture_output=True, text=True, check=True)
    functions: dict[str, set[str]] = defaultdict(set)
    for name, library in LINKED.findall(told.stdout):
        functions[library or DRIVER].add(name)
    if RUNTIME not in functions:
        pytest.skip(
            f"onnxruntime-gpu {onnxruntime.__version__} links {', '.join(sorted(functions))}, the stub is {RUNTIME}"
        )
    functions[UNUSED] = set()
    functions[CUDNN] = {name.decode() for name in LOOKED_UP.findall(provider.read_bytes())}
    for library, names in functions.items():
        _compile(gcc, folder / library, sorted(names), [str(SOURCE)] if library == RUNTIME else [])
    return folder


def _compile(gcc: str, library: Path, names: Sequence[str], sources: Sequence[str]) -> None:
    generated, versions = library.with_suffix(".c"), library.with_suffix(".map")
    lines = [
        f"__attribute__((weak)) int {name}(void **made) {{ *made = calloc(1, 64); return 0; }}"
        if CREATES.search(name)
        else f"__attribute__((weak)) int {name}(void) {{ return 0; }}"
        for name in names
    ]
    generated.write_text("#include <stdlib.h>\n" + "\n".join(lines) + "\n")
    versions.write_text(f"{library.name} {{ *; }};\n")
    command = [gcc, "-shared", "-fPIC", "-w", f"-Wl,-soname,{library.name}", f"-Wl,--version-script={versions}"]
    subprocess.run([*command, "-o", str(library), str(generated), *sources], check=True)


def sessions(stubs: Path, wanted: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What `cuda_stub_sessions.py` reports about each session. It runs in a process of its own, in which the stubs
    replace CUDA."""
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stubs)}
    command = [sys.executable, str(SESSIONS)]
    ended = subprocess.run(
        command,
        input=json.dumps(list(wanted)),
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)
