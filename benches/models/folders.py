"""Model folders: reads their configuration before anything is loaded, and reports an incomplete folder in one line.

    folders.check_pipeline(Path("my-model"), "StableDiffusionPipeline")     # FolderError: one line, or nothing
    folders.variants(Path("my-model"))                                      # {"unet": "fp16"}: no other files

Importing this module imports neither torch nor a model library.
"""

from __future__ import annotations

import json
import re
import struct
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.reasons import Reason, ReasonedError

INDEX = "model_index.json"
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|pytorch_model|model)(?:-\d{5}-of-\d{5})?(?:\.([A-Za-z0-9_]+?))?(?:-\d{5}-of-\d{5})?"
    r"\.(safetensors|bin)"
)
DIFFUSERS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
TRANSFORMERS_FILES = ("model.safetensors", "pytorch_model.bin")  # also those of timm
TIMM_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
SHARD_INDEX = "*.index*.json"
LFS = b"version https://git-lfs"
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_HEADER = 100_000_000  # bytes, of a safetensors file


class FolderError(ReasonedError, ValueError):
    """A model folder cannot be loaded; `str()` is one line that names the file and what to do."""


def _error(kind: str, at: Path, **data: Any) -> FolderError:
    """The error of that kind about the file or folder `at`."""
    return FolderError(Reason(kind, {"at": str(at), **data}))


def read_json(path: Path) -> Mapping[str, Any]:
    """The mapping in a JSON file. Raises FolderError."""
    if not path.is_file():
        raise _error("file_missing", path)
    raw = path.read_bytes()
    _check_raw(path, raw)
    try:
        found = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _error("file_not_utf8", path, byte=error.start) from None
    except RecursionError:
        raise _error("json_too_deep", path) from None
    except json.JSONDecodeError as error:
        raise _error("file_not_json", path, error=error.msg, line=error.lineno) from None
    if not isinstance(found, dict):
        raise _error("json_no_mapping", path, found=type(found).__name__)
    return found


def check_pipeline(folder: Path, pipeline: str, needed: Iterable[str] = (), left_out: Iterable[str] = ()) -> None:
    """Raises FolderError if `folder` holds no complete diffusers pipeline of the class `pipeline`. The parts `needed`
    must be named in its index; those `left_out` may be missing."""
    index = folder / INDEX
    if not index.is_file():
        raise _error("folder_without_index", folder, index=INDEX)
    parts = read_json(index)
    found = parts.get("_class_name")
    if found != pipeline:
        raise _error("folder_of_other_pipeline", folder, found=str(found), wanted=pipeline, index=INDEX)
    named = _parts(parts)
    if missing := [name for name in needed if name not in named]:
        raise _error("index_without_part", index, part=missing[0], pipeline=pipeline)
    for name, (library, class_name) in named.items():
        if name not in left_out:
            _check_part(folder, name, library, class_name)


def check_timm(folder: Path, architecture: str) -> Mapping[str, Any]:
    """The configuration of a folder that timm saved. Raises FolderError if it is incomplete or of another model."""
    config = read_json(folder / "config.json")
    found = config.get("architecture")
    if str(found).partition(".")[0] != architecture:
        raise _error("other_architecture", folder / "config.json", found=str(found), wanted=architecture)
    files = [file for file in _files(folder) if file.suffix in TIMM_SUFFIXES]
    _check_there(folder, files, TRANSFORMERS_FILES)
    _check_files(files)
    return config


def check_digits_vit(folder: Path, image_size: int) -> None:
    """Raises FolderError unless `folder` holds a classifier of colour images of `image_size` px in the format of the
    digits weights."""
    file = folder / "config.json"
    arguments = read_json(file).get("model_args")
    if not isinstance(arguments, dict):
        raise _error("no_model_args", file)
    for name, wanted, unless_stated in (("in_chans", 3, 3), ("img_size", image_size, 224)):
        found = arguments.get(name, unless_stated)
        if found != wanted:
            raise _error("not_for_the_scans", file, name=name, found=found, wanted=wanted)
    files = [file for file in _files(folder) if file.name == "model.safetensors"]
    _check_there(folder, files, ("model.safetensors",))
    _check_files(files)


def variants(folder: Path) -> dict[str, str]:
    """Part -> the variant ("fp16") of its files, for parts that have only files of one variant. Raises FolderError if a
    part has several variants and no plain files."""
    found: dict[str, str] = {}
    for name in _parts(read_json(folder / INDEX)):
        names = {match[2] for file in _files(folder / name) if (match := WEIGHTS.fullmatch(file.name))}
        if not names or None in names:
            continue
        if len(names) > 1:
            raise _error("several_variants", folder / name, variants=sorted(names))
        found[name] = names.pop()
    return found


def weights_files(folder: Path) -> list[Path]:
    """The weight files that are loaded for one network: safetensors before .bin, plain ones before a variant."""
    matches = {file: match for file in _files(folder) if (match := WEIGHTS.fullmatch(file.name))}
    plain = any(match[2] is None for match in matches.values())
    of_one = {file: match for file, match in matches.items() if match[2] is None or not plain}
    safe = [file for file, match in of_one.items() if match[3] == "safetensors"]
    return safe or list(of_one)


def pipeline_axes(folder: Path) -> dict[str, Any]:
    """The image size, in pixels along one side, that a folder's own configuration states; empty if it
    states none. An unreadable folder is reported when it is loaded."""
    try:
        denoiser = next(folder / name for name in ("unet", "transformer") if (folder / name).is_dir())
        side = read_json(denoiser / "config.json")["sample_size"]
        channels = read_json(folder / "vae" / "config.json")["block_out_channels"]
    except (FolderError, OSError, KeyError, StopIteration):
        return {}
    if not isinstance(side, int) or not isinstance(channels, list) or side < 1:
        return {}
    return {"image_size": side * 2 ** (len(channels) - 1)}


def timm_axes(folder: Path) -> dict[str, Any]:
    """The same for a folder that timm saved."""
    try:
        config = read_json(folder / "config.json")
    except (FolderError, OSError):
        return {}
    own = _mapping(config.get("model_args")).get("img_size")
    if own is None:
        pretrained = _mapping(config.get("pretrained_cfg"))
        input_size = pretrained.get("input_size", config.get("input_size"))
        own = input_size[-1] if isinstance(input_size, list) and input_size else None
    if isinstance(own, list) and len(set(own)) == 1:
        own = own[0]
    return {"image_size": own} if isinstance(own, int) else {}


def _parts(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Part -> (library, class name), without parts that the pipeline does not have."""
    pairs = {name: value for name, value in index.items() if isinstance(value, list) and len(value) == 2}
    return {name: (str(value[0]), str(value[1])) for name, value in pairs.items() if value[1] is not None}


def _check_part(folder: Path, name: str, library: str, class_name: str) -> None:
    part = folder / name
    if not part.is_dir():
        raise _error("part_without_folder", folder / INDEX, part=name, folder=str(part))
    for file in _files(part):
        if file.suffix in {".json", ".txt"}:
            _check_head(file)
    if class_name.endswith("Scheduler"):
        read_json(part / "scheduler_config.json")
    elif "Tokenizer" in class_name:
        _check_tokenizer(part)
    elif class_name.endswith(("FeatureExtractor", "ImageProcessor")):
        read_json(part / "preprocessor_config.json")
    else:
        read_json(part / "config.json")
        _check_weights(part, TRANSFORMERS_FILES if library == "transformers" else DIFFUSERS_FILES)


def _check_tokenizer(part: Path) -> None:
    read_json(part / "tokenizer_config.json")
    whole = (part / "tokenizer.json").is_file()
    pieces = (part / "spiece.model").is_file()  # a T5 tokenizer
    if not whole and not pieces and not ((part / "vocab.json").is_file() and (part / "merges.txt").is_file()):
        raise _error("tokenizer_incomplete", part)


def _check_weights(folder: Path, expected: tuple[str, str]) -> None:
    files = weights_files(folder)
    _check_there(folder, files, expected)
    for index in sorted(folder.glob(SHARD_INDEX)):
        for shard in sorted(set(_mapping(read_json(index).get("weight_map")).values())):
            if not (folder / shard).is_file():
                raise _error("shard_missing", index, shard=shard)
    _check_files(files)


def _check_there(folder: Path, files: list[Path], expected: tuple[str, ...]) -> None:
    if not files:
        there = [file.name for file in _files(folder)]
        raise _error("no_weights", folder, expected=list(expected), there=there)


def _check_files(files: list[Path]) -> None:
    for file in files:
        _check_head(file)
        if file.suffix == ".safetensors":
            _check_whole(file)
        elif _starts_with(file, b"PK") and not zipfile.is_zipfile(file):
            raise _error("archive_truncated", file)


def _check_whole(file: Path) -> None:
    """Raises FolderError if a safetensors file is shorter than its header says, or has no header."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = struct.unpack("<Q", stream.read(8).ljust(8, b"\0"))[0]
        if not 2 <= length <= MAX_HEADER:
            raise _error("safetensors_header_size", file, bytes=length)
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            ends = None
    if ends is None and size >= 8 + length:
        raise _error("safetensors_header_unreadable", file)
    wanted = 8 + length + max(ends or [0])
    if size < wanted:
        raise _error("safetensors_truncated", file, size=size, wanted=wanted)


def _check_head(file: Path) -> None:
    with file.open("rb") as stream:
        _check_raw(file, stream.read(64))


def _starts_with(file: Path, head: bytes) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(head)) == head


def _check_raw(file: Path, raw: bytes) -> None:
    if not raw:
        raise _error("file_empty", file)
    if raw.startswith(LFS):
        raise _error("file_lfs_pointer", file)
    if raw.startswith(BYTE_ORDER_MARK):
        raise _error("file_byte_order_mark", file)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
