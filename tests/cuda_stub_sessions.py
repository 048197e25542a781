"""Opens sessions of ONNX Runtime's CUDA provider over stubs of CUDA, in a process of its own (`cuda_stub_fixture.py`).

stdin is a list of what to open:
    path, options    the ONNX file, and the options of the provider; a `user_compute_stream` is replaced by a stream
    optimized        a file for the optimised graph, optional
    calls            how many calls to make by IO binding, each with `run_options`; none if left out
stdout is a list of what came of each, {error} or
    nodes            provider, operator and name of each node of the optimised graph
    device_bytes     device memory that was requested to open it
    waits, profile   how often the host waited in the last call, and the events of the session's profile
"""

import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import onnxruntime

ELEMENT_TYPES = {
    "tensor(float)": 1,
    "tensor(int32)": 6,
    "tensor(int64)": 7,
    "tensor(float16)": 10,
    "tensor(bfloat16)": 16,
}
BYTES = 1 << 22  # of a buffer for an input or an output

runtime = ctypes.CDLL("libcudart.so.13")
waits, taken = ctypes.c_int.in_dll(runtime, "stub_waits"), ctypes.c_size_t.in_dll(runtime, "stub_bytes")


def made(create: Any, *arguments: Any) -> int:
    handle = ctypes.c_void_p()
    assert create(ctypes.byref(handle), *arguments) == 0
    return int(handle.value or 0)


def opened(wanted: dict[str, Any]) -> dict[str, Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.enable_profiling = bool(wanted.get("calls"))
    options.profile_file_prefix = wanted["path"]
    if wanted.get("optimized"):
        options.optimized_model_filepath = wanted["optimized"]
    given = dict(wanted["options"])
    if "user_compute_stream" in given:
        given["user_compute_stream"] = str(made(runtime.cudaStreamCreate))
    before = taken.value
    try:
        session = onnxruntime.InferenceSession(
            wanted["path"], options, providers=[("CUDAExecutionProvider", given)], enable_fallback=0
        )
    except Exception as error:  # ONNX Runtime raises several kinds
        return {"error": str(error)}
    nodes = [
        {"provider": part.ep_name, "operator": node.op_type, "name": node.name}
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    if "CUDAExecutionProvider" not in session.get_providers():  # a warning is all that ONNX Runtime itself says
        return {"error": "the CUDA provider cannot be loaded over the stubs"}
    found: dict[str, Any] = {"nodes": nodes, "device_bytes": taken.value - before}
    if calls := wanted.get("calls"):
        for _ in range(calls):
            waited = called(session, wanted)
        events = Path(session.end_profiling())
        found |= {"waits": waited, "profile": json.loads(events.read_text())}
        events.unlink()
    return found


def called(session: Any, wanted: dict[str, Any]) -> int:
    """Makes one call as the backend does, and returns how often the host waited in it."""
    run = onnxruntime.RunOptions()
    for name, value in wanted.get("run_options", {}).items():
        run.add_run_config_entry(name, value)
    binding = session.io_binding()
    for name, bind, shape in [
        *((i, binding.bind_input, i.shape) for i in session.get_inputs()),
        *((o, binding.bind_output, o.shape) for o in session.get_outputs()),
    ]:
        buffer = made(runtime.cudaMalloc, ctypes.c_size_t(BYTES))
        ctypes.memset(buffer, 0, BYTES)
        bind(name.name, "cuda", 0, ELEMENT_TYPES[name.type], shape, buffer)
    before = waits.value
    session.run_with_iobinding(binding, run)
    return waits.value - before


print(json.dumps([opened(wanted) for wanted in json.load(sys.stdin)]))
