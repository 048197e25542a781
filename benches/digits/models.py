"""The digits models: their sizes, and how to load them with trained or random weights.

`weights` is "digits" (the files in the folder `weights`, made by `benches.digits.train`), "random" (the same
architecture with seeded weights, without files) or a folder in the same format. All models are returned in fp32, on the
CPU and in eval mode; the caller casts and moves them.

    python -c "from benches.digits import models; models.build_dit('digits')([7])[0][0].save('seven.png')"
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benches.digits.prompts import MAX_LENGTH, PROMPTS, WORDS, build_tokenizer, prompt, vocabulary

if TYPE_CHECKING:
    import torch
    from diffusers import AutoencoderKL, DiTPipeline, StableDiffusionPipeline
    from timm.models import VisionTransformer

__all__ = [
    "DIT_GUIDANCE", "PROMPTS", "SD_GUIDANCE", "WEIGHTS", "WORDS", "build_dit", "build_sd", "build_vae", "build_vit",
    "preprocess", "prompt", "weights_folder", "weights_hash",
]  # fmt: skip

WEIGHTS = Path(__file__).parent / "weights"
RANDOM_SEED = 0
DIT_GUIDANCE = 1.5  # classifier-free guidance scale; 1 is none
SD_GUIDANCE = 1.5
MEAN = STD = 0.5  # the ViT's input is (pixel / 255 - MEAN) / STD, so -1 to 1

VIT = {  # 0.46 M parameters
    "img_size": 32,
    "patch_size": 4,  # (N, 3, 32, 32) -> (N, 64, 96), 65 tokens with the class token
    "embed_dim": 96,
    "depth": 4,
    "num_heads": 3,
    "num_classes": 10,  # (N, 96) -> (N, 10)
}
VAE = {  # 0.2 M parameters
    "sample_size": 32,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,  # (N, 3, 32, 32) <-> (N, 4, 8, 8)
    "block_out_channels": (16, 32, 32),  # at sides 32, 16, 8
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "scaling_factor": 1.0,  # unit variance per channel: folded into the 1x1 convolutions at the end of training
}
DIT = {  # 2.9 M parameters, 0.8 M of them label rows
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "patch_size": 2,  # (N, 4, 8, 8) -> (N, 16, 128)
    "num_attention_heads": 4,
    "attention_head_dim": 32,  # width 128
    "num_layers": 6,
    "num_embeds_ada_norm": 1000,  # DiTPipeline's null class is row 1000; rows 10 to 999 are unused and zero
}
UNET = {  # 2.2 M parameters
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (48, 96),  # at sides 8, 4
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 64,  # reads (N, 77, 64)
    "attention_head_dim": 4,  # in this class: the number of heads
    "norm_num_groups": 16,
}
TEXT = {  # 0.14 M parameters and the vocabulary's rows
    "hidden_size": 64,  # (N, 77) -> (N, 77, 64)
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
}
SCHEDULER = {  # a DDIMScheduler; DPM++ 2M, Euler, Heun, UniPC and others take it by from_config
    "num_train_timesteps": 1000,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",  # few steps start at pure noise
    "steps_offset": 1,
    "clip_sample": False,
}


def build_vit(weights: str | Path = "digits") -> VisionTransformer:
    """Return the classifier: `preprocess`ed float (N, 3, 32, 32) -> logits (N, 10)."""
    from safetensors.torch import load_file
    from timm.models import VisionTransformer

    if weights == "random":
        with seeded():
            return VisionTransformer(**VIT).eval()
    folder = weights_folder("vit", weights)
    config = json.loads((folder / "config.json").read_text())
    vit = VisionTransformer(**config["model_args"])
    vit.load_state_dict({name: value.float() for name, value in load_file(folder / "model.safetensors").items()})
    return vit.eval()


def preprocess(images: torch.Tensor) -> torch.Tensor:
    """Return images, uint8 (N, 3, 32, 32), as the classifier's input: float32 of the same shape, -1 to 1."""
    return (images.float() / 255.0 - MEAN) / STD


def build_vae() -> AutoencoderKL:
    """Return an untrained autoencoder: (N, 3, 32, 32) of -1 to 1 <-> latents (N, 4, 8, 8). Not seeded."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(**VAE).eval()


def build_dit(weights: str | Path = "digits") -> DiTPipeline:
    """Return the class-conditional pipeline: labels 0 to 9 -> images, by default 32x32 PIL."""
    from diffusers import DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    if weights == "random":
        with seeded():
            transformer = DiTTransformer2DModel(**DIT).eval()
            pipeline = DiTPipeline(transformer, build_vae(), DDIMScheduler(**SCHEDULER))
    else:
        with without_loading_messages():
            pipeline = DiTPipeline.from_pretrained(weights_folder("dit", weights))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_sd(weights: str | Path = "digits") -> StableDiffusionPipeline:
    """Return the text-to-image pipeline: prompts such as `PROMPTS` -> images, by default 32x32 PIL."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    if weights != "random":
        with without_loading_messages():
            pipeline = StableDiffusionPipeline.from_pretrained(weights_folder("sd", weights))
    else:
        with seeded(), without_loading_messages():
            pipeline = StableDiffusionPipeline(
                vae=build_vae(),
                text_encoder=CLIPTextModel(text_config()).eval(),
                tokenizer=build_tokenizer(),
                unet=UNet2DConditionModel(**UNET).eval(),
                scheduler=DDIMScheduler(**SCHEDULER),
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_config() -> Any:
    """Return the text encoder's `CLIPTextConfig`, with the token ids of the digits vocabulary."""
    from transformers import CLIPTextConfig

    size = len(vocabulary()[0])
    return CLIPTextConfig(
        **TEXT, vocab_size=size, bos_token_id=size - 2, eos_token_id=size - 1, pad_token_id=size - 1, projection_dim=64
    )


def weights_folder(name: str, weights: str | Path) -> Path:
    """Return the folder of `weights` for the model `name`. Raises FileNotFoundError, which says what to run."""
    folder = WEIGHTS / name if weights == "digits" else Path(weights)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder; python -m benches.digits.train makes the digits weights")
    return folder


def weights_hash(name: str, weights: str | Path = "digits") -> str | None:
    """Return the sha256 (hex) of the names and bytes of the model's files in order; None for random weights."""
    if weights == "random":
        return None
    folder = weights_folder(name, weights)
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()


@contextlib.contextmanager
def seeded(seed: int = RANDOM_SEED) -> Iterator[None]:
    """Seed torch's generator inside the block and restore the caller's state after it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the block. This is fastest for small tensors, and less affected by other
    processes."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def without_loading_messages() -> Iterator[None]:
    """Suppress, inside the block, the progress bars of loading and the notice that there is no safety checker."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    notice = logging.getLogger("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    level, libraries = notice.level, (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    notice.setLevel(logging.ERROR)
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        notice.setLevel(level)
        for library in shown:
            library.enable_progress_bar()
