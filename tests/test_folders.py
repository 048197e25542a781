"""Folders of models as users have them: what loads, and the one line of what cannot. Copies of the digits weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import benches.models
from benches.models import folders, weights
from benches.models.folders import FolderError
from harness import suite
from harness.registry import MODELS
from harness.types import Case, Workload

# diffusers passes arrays to numpy in a way that numpy 2 deprecates; nothing here can change it.
pytestmark = [pytest.mark.filterwarnings("ignore:__array:DeprecationWarning"), pytest.mark.usefixtures("one_thread")]

DIGITS = Path(benches.models.__file__).parents[1] / "digits" / "weights"
UNET = "unet/diffusion_pytorch_model.safetensors"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 8890000\n"


@pytest.fixture
def sd(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DIGITS / "sd", tmp_path / "a möd el"))


def build(folder: Path, model: str = "sd15", **axes: Any) -> Workload:
    case = Case(
        model=model,
        weights=str(folder),
        image_size=32,
        scheduler="ddim",
        num_steps=1,
        guidance_scale=1.0,
        prompt="a handwritten seven",
    )
    return MODELS[model].build(case.with_(**axes))


def run(workload: Workload) -> torch.Tensor:
    return workload.iterate({c.name: c.module for c in workload.components}, workload.batch)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def without(file: Path, key: str) -> None:
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))


def halved(file: Path, scale: float = 1.0) -> Path:
    """A file of the variant fp16 beside a safetensors file, its values times `scale`."""
    from safetensors.torch import load_file, save_file

    variant = file.with_suffix(".fp16.safetensors")
    save_file(
        {name: value.half() * scale for name, value in load_file(file).items()}, variant, metadata={"format": "pt"}
    )
    return variant


def networks_of(folder: Path) -> list[Path]:
    return [
        folder / UNET,
        folder / "vae/diffusion_pytorch_model.safetensors",
        folder / "text_encoder/model.safetensors",
    ]


def test_a_whole_folder_with_spaces_and_umlauts_runs(sd: Path) -> None:
    assert run(build(sd)).shape == (1, 3, 32, 32)


def test_files_of_a_variant_alone_are_read_in_fp32(sd: Path) -> None:
    plain = run(build(sd))
    for file in networks_of(sd):
        halved(file)
        file.unlink()
    assert folders.variants(sd) == {"unet": "fp16", "vae": "fp16", "text_encoder": "fp16"}
    workload = build(sd)
    assert {p.dtype for c in workload.components for p in c.module.parameters()} == {torch.float32}
    torch.testing.assert_close(run(workload), plain, atol=0.02, rtol=0)


def test_where_both_are_there_the_plain_files_are_read_part_by_part(sd: Path) -> None:
    plain = run(build(sd))
    for file in networks_of(sd):
        halved(file, scale=0.0)
    assert folders.variants(sd) == {}
    torch.testing.assert_close(run(build(sd)), plain, atol=1e-4, rtol=0)
    networks_of(sd)[1].unlink()
    assert folders.variants(sd) == {"vae": "fp16"}
    assert (run(build(sd)) - plain).abs().max() > 0.1


@pytest.mark.parametrize("how", [{"max_shard_size": "2MB"}, {"safe_serialization": False}])
def test_shards_and_bin_files_run(sd: Path, tmp_path: Path, how: dict[str, Any]) -> None:
    from diffusers import UNet2DConditionModel

    plain = run(build(sd))
    network = UNet2DConditionModel.from_pretrained(sd / "unet")
    shutil.rmtree(sd / "unet")
    network.save_pretrained(sd / "unet", **how)
    assert (len(folders.weights_files(sd / "unet")) > 1) is ("max_shard_size" in how)
    torch.testing.assert_close(run(build(sd)), plain, atol=1e-4, rtol=0)


def test_a_tokenizer_that_does_not_say_its_length_has_that_of_its_encoder(sd: Path) -> None:
    plain = run(build(sd))
    without(sd / "tokenizer/tokenizer_config.json", "model_max_length")
    workload = build(sd)
    torch.testing.assert_close(run(workload), plain, atol=1e-4, rtol=0)
    assert workload.facts["truncation"]["tokenizer"]["limit"] == 77


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def marked(file: Path) -> None:
    file.write_bytes(folders.BYTE_ORDER_MARK + file.read_bytes())


def without_a_tensor(file: Path, name: str = "conv_out.weight") -> None:
    from safetensors.torch import load_file, save_file

    save_file({n: v for n, v in load_file(file).items() if n != name}, file, metadata={"format": "pt"})


def as_bin(file: Path) -> Path:
    from safetensors.torch import load_file

    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    return file.with_suffix(".bin")


def of_two_variants(folder: Path) -> None:
    file = halved(folder / UNET)
    shutil.copy(file, file.with_name("diffusion_pytorch_model.bf16.safetensors"))
    (folder / UNET).unlink()


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no index": (lambda f: (f / "model_index.json").unlink(), "holds no model_index.json"),
    "another pipeline": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionImg2ImgPipeline"),
        "holds a StableDiffusionImg2ImgPipeline, not a StableDiffusionPipeline",
    ),
    "a part is not named": (
        lambda f: without(f / "model_index.json", "unet"),
        "model_index.json: does not name .*unet",
    ),
    "a part is not there": (lambda f: shutil.rmtree(f / "vae"), "names the part 'vae', but .*vae is not a folder"),
    "a part has another name": (lambda f: (f / "unet").rename(f / "UNet"), "names the part 'unet'"),
    "a mark in the index": (
        lambda f: marked(f / "model_index.json"),
        "model_index.json: starts with a byte order mark",
    ),
    "a mark in a network": (lambda f: marked(f / "unet/config.json"), "unet/config.json: starts with a byte order"),
    "a mark in a scheduler": (lambda f: marked(f / "scheduler/scheduler_config.json"), "scheduler_config.json: starts"),
    "a mark in a tokenizer": (
        lambda f: marked(f / "tokenizer/tokenizer.json"),
        "tokenizer/tokenizer.json: starts with",
    ),
    "no JSON": (lambda f: (f / "vae/config.json").write_text('{"a": '), "vae/config.json: not JSON"),
    "no UTF-8": (lambda f: (f / "vae/config.json").write_bytes(b'{"a": "\xe4"}'), "vae/config.json: not UTF-8"),
    "no mapping": (lambda f: (f / "vae/config.json").write_text("[1]"), "vae/config.json: holds a list"),
    "no config": (lambda f: (f / "unet/config.json").unlink(), "unet/config.json: there is no such file"),
    "no scheduler": (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json: there is no"),
    "no vocabulary": (lambda f: (f / "tokenizer/tokenizer.json").unlink(), "tokenizer: neither tokenizer.json nor"),
    "no weights": (lambda f: (f / UNET).unlink(), r"unet: no weights \(diffusion_pytorch_model.safetensors or"),
    "weights of another name": (lambda f: (f / UNET).rename(f / "unet/w.safetensors"), "there is config.json, w.safet"),
    "cut off": (lambda f: cut(f / UNET), "model.safetensors: has .* of the .* bytes in its header: it is truncated"),
    "a cut .bin": (lambda f: cut(as_bin(f / UNET)), "model.bin: the archive is truncated"),
    "empty": (lambda f: (f / UNET).write_bytes(b""), "model.safetensors: is empty"),
    "no safetensors": (lambda f: (f / UNET).write_bytes(b"<html>" * 99), "model.safetensors: not a safetensors file"),
    "an LFS pointer": (lambda f: (f / UNET).write_text(LFS), "model.safetensors: is a Git LFS pointer"),
    "an LFS tokenizer": (lambda f: (f / "tokenizer/tokenizer.json").write_text(LFS), "tokenizer.json: is a Git LFS"),
    "a tensor is missing": (lambda f: without_a_tensor(f / UNET), "unet: its weights files hold .* values, but"),
    "another size": (lambda f: edit(f / "unet/config.json", block_out_channels=[64, 96]), "diffusers cannot load it"),
    "two variants": (of_two_variants, "unet: there are only weights of the variants bf16, fp16"),
    "longer prompts": (
        lambda f: edit(f / "tokenizer/tokenizer_config.json", model_max_length=512),
        "model_max_length is",
    ),
}


@pytest.mark.parametrize("model", ["sd15", "digits_sd"])
@pytest.mark.parametrize("name", list(BROKEN))
def test_a_folder_that_is_not_whole_is_one_line_that_names_the_file(name: str, model: str, sd: Path) -> None:
    broken, message = BROKEN[name]
    broken(sd)
    with pytest.raises(ValueError, match=message) as raised:
        build(sd, model)
    assert "\n" not in str(raised.value)


def test_a_missing_shard_is_named(sd: Path) -> None:
    from diffusers import UNet2DConditionModel

    network = UNet2DConditionModel.from_pretrained(sd / "unet")
    shutil.rmtree(sd / "unet")
    network.save_pretrained(sd / "unet", max_shard_size="2MB")
    folders.weights_files(sd / "unet")[1].unlink()
    with pytest.raises(FolderError, match=r"index.json names diffusion_pytorch_model-00002-of-.*, which is not there"):
        build(sd)


def sizes(lines: str) -> list[int | None]:
    return [case.image_size for case in suite.parse(f"cases:\n{lines}").cases]


def test_the_image_size_of_a_row_is_the_folders(sd: Path) -> None:
    line = f' - {{model: sd15, weights: "{sd}"'
    assert sizes(f"{line}}}") == [32]
    assert sizes(f"{line}, image_size: [32, 64]}}") == [32, 64]
    edit(sd / "unet/config.json", sample_size=16)
    assert sizes(f"{line}}}") == [64]
    (sd / "unet/config.json").write_text("{")
    assert sizes(f"{line}}}") == [512]  # the row itself says what is wrong with the folder


def test_a_dit_has_its_folders_size_alone(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DIGITS / "dit", tmp_path / "dit"))
    line = f' - {{model: dit_xl_2, weights: "{folder}"'
    assert sizes(f"{line}}}") == [32]
    with pytest.raises(suite.SuiteError, match="supports 32 only, not 256"):
        sizes(f"{line}, image_size: 256}}")


def vit(folder: Path, **options: Any) -> Path:
    import timm
    from timm.models import save_for_hf

    arguments = {name: value for name, value in options.items() if name != "num_classes"}
    module = weights.random_module(lambda: timm.create_model("vit_tiny_patch16_224", **options))
    with torch.no_grad():
        module.cls_token.normal_(generator=torch.Generator().manual_seed(0))
    save_for_hf(module, str(folder), model_args=arguments, safe_serialization=True)
    return folder


def build_vit(folder: Path) -> Workload:
    (case,) = suite.parse(f'cases: [{{model: vit_tiny_patch16_224, batch_size: 2, weights: "{folder}"}}]').cases
    return MODELS[case.model].build(case)


@pytest.mark.parametrize(
    ("options", "given", "shape", "kind"),
    [
        ({"num_classes": 5, "img_size": 32}, (2, 3, 32, 32), (2, 5), "logits"),
        ({"num_classes": 1, "img_size": 48}, (2, 3, 48, 48), (2, 1), "logits"),
        ({"num_classes": 0, "img_size": 32}, (2, 3, 32, 32), (2, 192), "features"),
        ({"num_classes": 0, "img_size": 32, "global_pool": ""}, (2, 3, 32, 32), (2, 5, 192), "features"),
        ({"num_classes": 5, "img_size": 32, "in_chans": 1}, (2, 1, 32, 32), (2, 5), "logits"),
        ({"num_classes": 5, "img_size": 32, "in_chans": 5}, (2, 5, 32, 32), (2, 5), "logits"),
    ],
)
def test_a_classifiers_folder_says_its_size_channels_and_classes(
    options: dict[str, Any], given: tuple[int, ...], shape: tuple[int, ...], kind: str, tmp_path: Path
) -> None:
    workload = build_vit(vit(tmp_path, **options))
    assert workload.batch.shape == given
    assert workload.output_shape == shape == tuple(run(workload).shape)
    assert workload.output_kind == kind


BROKEN_VIT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json: there is no such file"),
    "a mark": (lambda f: marked(f / "config.json"), "config.json: starts with a byte order mark"),
    "another one": (lambda f: edit(f / "config.json", architecture="resnet18"), "names the architecture 'resnet18'"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no weights .* there is config.json"),
    "cut off": (lambda f: cut(f / "model.safetensors"), "model.safetensors: has .* it is truncated"),
    "an LFS pointer": (lambda f: (f / "model.safetensors").write_text(LFS), "is a Git LFS pointer"),
    "other classes": (
        lambda f: edit(f / "config.json", model_args={"img_size": 32, "num_classes": 12}),
        "config.json: num_classes in model_args is 12, but the stored weights have 5",
    ),
    "a tensor is missing": (lambda f: without_a_tensor(f / "model.safetensors", "norm.weight"), "timm cannot load it"),
}


@pytest.mark.parametrize("name", list(BROKEN_VIT))
def test_a_classifiers_folder_that_is_not_whole_is_one_line(name: str, tmp_path: Path) -> None:
    broken, message = BROKEN_VIT[name]
    broken(vit(tmp_path, num_classes=5, img_size=32))
    with pytest.raises(FolderError, match=message) as raised:
        build_vit(tmp_path)
    assert "\n" not in str(raised.value)


def test_timms_full_name_of_an_architecture_is_that_architecture(tmp_path: Path) -> None:
    vit(tmp_path, num_classes=5, img_size=32)
    edit(tmp_path / "config.json", architecture="vit_tiny_patch16_224.augreg_in21k")
    assert build_vit(tmp_path).output_shape == (2, 5)


@pytest.mark.parametrize(("name", "value"), [("in_chans", 1), ("img_size", 64)])
def test_a_digits_classifier_of_other_pictures_is_refused(name: str, value: int, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(DIGITS / "vit", tmp_path / "vit"))
    file = folder / "config.json"
    edit(file, model_args={**json.loads(file.read_text())["model_args"], name: value})
    with pytest.raises(FolderError, match=f"config.json: {name} is {value}, but the scans have"):
        MODELS["digits_vit"].build(Case(model="digits_vit", weights=str(folder), image_size=32))
