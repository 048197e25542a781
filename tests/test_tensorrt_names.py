"""Every name of TensorRT that is used exists in the real 11.x bindings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.backends import tensorrt
from harness.backends.tensorrt import engine as tensorrt_engine
from harness.backends.tensorrt import log as tensorrt_log

SOURCES = [Path(tensorrt_engine.__file__), Path(tensorrt_log.__file__), Path(tensorrt.__file__)]
VARIABLES = {  # what a variable or attribute of harness.backends.tensorrt.engine holds
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_context": "IExecutionContext",
    "context": "IExecutionContext",
    "inspector": "EngineInspector",
}


def test_the_bindings_are_of_the_version_that_this_backend_speaks(trt: Any) -> None:
    assert int(trt.__version__.split(".")[0]) == tensorrt.VERSION


def test_every_name_of_the_module_that_is_used_exists(trt: Any) -> None:
    used = sorted({name for source in SOURCES for name in module_names(source)})
    assert {"trt.Builder", "trt.BuilderFlag.TF32", "trt.LayerInformationFormat.JSON"} <= set(used)
    for name in used:
        found = trt
        for part in name.split(".")[1:]:
            assert hasattr(found, part), name
            found = getattr(found, part)


def test_every_method_that_is_used_exists_on_its_class(trt: Any) -> None:
    used = {use for source in SOURCES for use in attribute_uses(source)}
    assert ("IExecutionContext", "execute_async_v3") in used
    assert ("IBuilderConfig", "set_timing_cache") in used
    missing = [f"{owner}.{name}" for owner, name in sorted(used) if not hasattr(getattr(trt, owner), name)]
    assert missing == []


def module_names(source: Path) -> Iterator[str]:
    """ "trt.Logger.ERROR" for every chain of attributes that begins with the module."""
    for node in ast.walk(ast.parse(source.read_text())):
        chain = dotted(node)
        if chain and chain.split(".")[0] in {"trt", "tensorrt"} and "." in chain:
            yield "trt." + chain.split(".", 1)[1]


def attribute_uses(source: Path) -> Iterator[tuple[str, str]]:
    """(class, attribute) for every attribute of a variable that holds one of TensorRT's objects. A bare `engine` is one
    of ours, `.engine` TensorRT's."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Attribute) and dotted(node.value) != "engine":
            name = (dotted(node.value) or "").split(".")[-1]
            if name in VARIABLES:
                yield VARIABLES[name], node.attr


def dotted(node: ast.AST) -> str | None:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (inner := dotted(node.value)):
        return f"{inner}.{node.attr}"
    return None
