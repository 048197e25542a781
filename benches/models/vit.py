"""ViT classifiers of timm: Dosovitskiy et al. 2020, and DeiT-S, the same architecture with another training recipe.

`weights` is "random" (timed on seeded random images), "pretrained" (timm's default weights from the hub) or a folder
with timm's `config.json` and `model.safetensors`, whose image size, channels and classes are the row's.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benches.models import folders, reading
from harness.reasons import Reason
from harness.registry import MODELS
from harness.types import Case, Workload

CLASSES = 1000  # of ImageNet; timm's ViT-H/14 has no head by default
SIZES = {  # timm's name -> (in words, patch side in pixels, parameters at 224 px and 1,000 classes)
    "vit_tiny_patch16_224": ("ViT-Ti/16", 16, 5_717_416),
    "vit_small_patch16_224": ("ViT-S/16", 16, 22_050_664),
    "vit_base_patch16_224": ("ViT-B/16", 16, 86_567_656),
    "vit_large_patch16_224": ("ViT-L/16", 16, 304_326_632),
    "vit_huge_patch14_224": ("ViT-H/14", 14, 632_045_800),
    "deit_small_patch16_224": ("DeiT-S/16", 16, 22_050_664),
}


def build(case: Case) -> Workload:
    """The workload of a timm ViT: one forward over a batch of images."""
    import torch

    from benches.models.workloads import classifier_workload, item_seeds

    module, weights_hash = _load(case)
    side = int(case.image_size or 0)
    generators = [torch.Generator().manual_seed(seed) for seed in item_seeds(case, case.batch_size)]
    channels = module.patch_embed.proj.in_channels  # as in the weights: 1 for a greyscale model
    images = torch.stack([torch.randn(channels, side, side, generator=generator) for generator in generators])
    identity = {"architecture": case.model, "image_size": case.image_size, "images": f"normal, seed {case.seed}"}
    return classifier_workload(module, case, images, weights_hash, identity)


def _load(case: Case) -> tuple[Any, str]:
    import timm

    from benches.models.weights import RANDOM_SEED, folder_hash, random_module

    create = partial(timm.create_model, img_size=case.image_size)
    if case.weights == "random":
        return random_module(partial(create, case.model, num_classes=CLASSES)), f"random-{RANDOM_SEED}"
    if case.weights == "pretrained":
        module: Any = create(case.model, pretrained=True)
        return module, f"hub:{module.pretrained_cfg.get('hf_hub_id')}@{module.pretrained_cfg.get('tag')}"
    folder = Path(case.weights).expanduser()
    folders.check_timm(folder, case.model)
    with reading.by("timm", folder):
        module = create(f"local-dir:{folder}", pretrained=True)
    stored = module.pretrained_cfg.get("num_classes")
    if module.num_classes != stored:  # timm then initialises the last layer at random
        told = {"at": str(folder / "config.json"), "found": module.num_classes, "stored": stored}
        raise folders.FolderError(Reason("other_number_of_classes", told))
    return module, folder_hash(folder)


for _name, (_words, _patch, _parameters) in SIZES.items():
    MODELS.add(
        _name,
        family="ViT classifier",
        description=f"{_words}, timm's {_name}: images -> {CLASSES:,} classes",
        axes={"image_size": 224},
        weights=("random", "pretrained", "folder"),
        image_size_multiple=_patch,
        parameters=_parameters,
        libraries=("timm",),
        folder_axes=folders.timm_axes,
    )(build)
