"""Single readings of NVML through nvidia-ml-py, as None or a reason where there is none.

A device, a driver or a permission may refuse any call, an old library may lack it, and a driver may answer with all
bits set, which means "not available": none of these is ever a number. Each function of nvidia-ml-py is named where it
is called, and where it was renamed, by both names.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

NOT_AVAILABLE: Final = 0xFFFFFFFF
NOT_AVAILABLE_64: Final = 0xFFFFFFFFFFFFFFFF
ATTEMPTS: Final = 3  # at a list of processes that grows while it is read


def in_words(error: Exception | None) -> str:
    """ "NVML: Not Supported"."""
    try:
        return f"NVML: {error}"
    except failures():  # the library cannot even name its error
        return f"NVML: error {getattr(error, 'value', 'unknown')}"


def failures() -> tuple[type[Exception], ...]:
    """What nvidia-ml-py raises: its own error of a library that is older than the call is no NVMLError, and text that
    the driver leaves unwritten need not decode."""
    import pynvml

    return pynvml.NVMLError, pynvml.NVMLLibraryMismatchError, UnicodeDecodeError


def read(call: Callable[[], T]) -> T | None:
    """One reading; None where this device, driver or permission does not give it."""
    try:
        return call()
    except failures():
        return None


def number(call: Callable[[], int], absent: int = NOT_AVAILABLE) -> int | None:
    """One reading; None also where the driver answers that it is not available."""
    value = read(call)
    return None if value == absent else value


def field(handle: Any, identifier: int) -> float | None:
    """One field value, by the type that NVML says it has; None where it is not supported or not available."""
    import pynvml

    found = read(lambda: pynvml.nvmlDeviceGetFieldValues(handle, [identifier]))
    if found is None or found[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return None
    members = {
        pynvml.NVML_VALUE_TYPE_DOUBLE: ("dVal", math.nan),
        pynvml.NVML_VALUE_TYPE_UNSIGNED_INT: ("uiVal", NOT_AVAILABLE),
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG: ("ulVal", NOT_AVAILABLE_64),
        pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: ("ullVal", NOT_AVAILABLE_64),
        pynvml.NVML_VALUE_TYPE_SIGNED_LONG_LONG: ("sllVal", -1),
        pynvml.NVML_VALUE_TYPE_SIGNED_INT: ("siVal", -1),
        pynvml.NVML_VALUE_TYPE_UNSIGNED_SHORT: ("usVal", 0xFFFF),
    }
    if found[0].valueType not in members:
        return None
    member, absent = members[found[0].valueType]
    value = float(getattr(found[0].value, member))
    # Powers and times are what is asked for: neither is ever below 0.
    return value if math.isfinite(value) and value >= 0 and value != float(absent) else None


def throttle_reasons(handle: Any) -> int | None:
    """The bits, by the call's name before and since driver 535."""
    import pynvml

    for call in (pynvml.nvmlDeviceGetCurrentClocksEventReasons, pynvml.nvmlDeviceGetCurrentClocksThrottleReasons):
        found = number(lambda call=call: call(handle), NOT_AVAILABLE_64)  # type: ignore[misc]
        if found is not None:
            return found
    return None


def processes(handle: Any) -> list[int] | None:
    """The numbers of the processes that compute on the device; None where the driver does not tell."""
    import pynvml

    for call in (pynvml.nvmlDeviceGetComputeRunningProcesses, pynvml.nvmlDeviceGetComputeRunningProcesses_v2):
        for _ in range(ATTEMPTS):
            try:
                return [process.pid for process in call(handle)]
            except pynvml.NVMLError_InsufficientSize:  # one more began between the count and the list
                continue
            except failures():
                break
    return None
