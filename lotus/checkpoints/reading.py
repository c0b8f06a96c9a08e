"""The networks of a checkpoint folder: the facts of their configs checked, their weights verified."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotus.checkpoints.sources import (
    ENCODER_CONFIG,
    IMAGE_ENCODER,
    PROMPT,
    TEXT_CONFIG,
    TEXT_ENCODER,
    UNET,
    VAE,
    find_checkpoint,
)
from lotus.modules import first_line, read_config, read_module
from recon.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

    from lotus.image_encoder import ImageEncoder

_UNET_FACTS = {
    "_class_name": ("UNet2DConditionModel",),
    "class_embed_type": ("projection",),
    "projection_class_embeddings_input_dim": (4, 6),
    "use_linear_projection": (True,),
    "resnet_time_scale_shift": ("default", None),
    "resnet_out_scale_factor": (1.0, None),
    "mid_block_scale_factor": (1, None),
}
_BASE_FACTS = {"_class_name": ("UNet2DConditionModel",), "use_linear_projection": (True,)}
_VAE_FACTS = {"_class_name": ("AutoencoderKL",), "in_channels": (3,)}
_ENCODER_FACTS = {"_class_name": ("EfficientNetLite0Features",)}
_TEXT_FACTS = {"model_type": ("clip_text_model",)}


@dataclass(frozen=True)
class Layout:
    """What the configs of a checkpoint say of its networks."""

    latent_channels: int
    is_generative: bool
    task_count: int
    """Entries of the task switch: the annotation, or depth and normals of a joint model; then the photo."""


def layout(folder: Path) -> Layout:
    """Returns the layout of a checkpoint folder.

    Raises:
        InputError: The configs are not Lotus's, or do not fit each other.
    """
    unet = read_config(folder / "unet/config.json", _UNET_FACTS)
    latent = int(read_config(folder / "vae/config.json", _VAE_FACTS).get("latent_channels", 4))
    features = 0
    if (folder / IMAGE_ENCODER).is_file():
        features = sum(read_config(folder / ENCODER_CONFIG, _ENCODER_FACTS)["channels"])
    for key, wanted in {
        "in_channels": (latent + features, 2 * latent + features),
        "out_channels": (latent,),
    }.items():
        if unet.get(key) not in wanted:
            raise InputError(
                f"{folder / 'unet/config.json'}: {key} is {unet.get(key)!r}, beside this VAE"
                f"{' and image encoder' if features else ''} in a Lotus checkpoint it is "
                f"{' or '.join(map(str, wanted))}"
            )
    tasks = unet["projection_class_embeddings_input_dim"] // 2
    return Layout(latent, unet["in_channels"] == 2 * latent + features, tasks)


def is_generative(source: str | Path) -> bool:
    """Returns True for Lotus-G, whose UNet takes noise beside the photo's latent.

    Raises:
        InputError: As `find_checkpoint`, or it is not Lotus's UNet.
    """
    return layout(find_checkpoint(source)).is_generative


def read_unet(folder: Path) -> Any:
    """Returns the verified UNet of a checkpoint folder, on the CPU, its weights mapped from the file."""
    from diffusers import UNet2DConditionModel

    layout(folder)  # before a network is built
    config = read_config(folder / "unet/config.json", _UNET_FACTS)
    return read_module(folder / UNET, lambda: UNet2DConditionModel.from_config(config))


def read_vae(folder: Path) -> Any:
    """Returns the verified VAE of a checkpoint folder, on the CPU, its weights mapped from the file."""
    from diffusers import AutoencoderKL

    config = read_config(folder / "vae/config.json", _VAE_FACTS)
    return read_module(folder / VAE, lambda: AutoencoderKL.from_config(config))


def read_image_encoder(folder: Path) -> "ImageEncoder | None":
    """Returns the verified image encoder of a checkpoint folder in float32, or None if it has none."""
    from lotus.image_encoder import ImageEncoder

    if not (folder / IMAGE_ENCODER).is_file():
        return None
    channels = read_config(folder / ENCODER_CONFIG, _ENCODER_FACTS)["channels"]
    encoder: ImageEncoder = read_module(folder / IMAGE_ENCODER, lambda: ImageEncoder(channels)).float()
    return encoder


def read_unet_weights(folder: Path) -> tuple[dict[str, Any], "dict[str, torch.Tensor]"]:
    """Returns config and float32 weights of a UNet that is Lotus's or Stable Diffusion 2's, to be adapted."""
    from diffusers import UNet2DConditionModel

    config = read_config(folder / "unet/config.json", _BASE_FACTS)
    unet = read_module(folder / UNET, lambda: UNet2DConditionModel.from_config(config)).float()
    return config, {name: weight.clone() for name, weight in unet.state_dict().items()}


def embed_prompt(folder: Path) -> "Float32[torch.Tensor, '2 c']":
    """Returns the empty prompt's embedding: the checkpoint's constant, or the text encoder's."""
    if not (folder / PROMPT).is_file():
        return embed_empty_prompt(folder)
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        prompt = load_file(folder / PROMPT).get("prompt")
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / PROMPT}: cannot be read: {first_line(error)}") from error
    if prompt is None or prompt.ndim != 2 or len(prompt) != 2:
        raise InputError(f"{folder / PROMPT}: wanted a tensor 'prompt' of two tokens")
    return prompt.float()


def embed_empty_prompt(folder: Path) -> "Float32[torch.Tensor, '2 c']":
    """Returns the text embedding of the empty prompt, the only one that Lotus ever sees.

    Two tokens, begin and end, without padding to 77; the text encoder is freed on return.

    Raises:
        InputError: Text encoder or tokenizer are damaged.
    """
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = read_config(folder / TEXT_CONFIG, _TEXT_FACTS)
    encoder = (
        read_module(folder / TEXT_ENCODER, lambda: CLIPTextModel(CLIPTextConfig(**config))).float().eval()
    )
    try:
        tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)("").input_ids
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / 'tokenizer'}: cannot be read: {first_line(error)}") from error
    if len(tokens) != 2 or max(tokens) >= config["vocab_size"]:
        raise InputError(
            f"{folder / 'tokenizer'}: the empty prompt is {tokens}, wanted a begin and an end token"
        )
    with torch.inference_mode():
        states = encoder(torch.tensor([tokens]), position_ids=torch.arange(2)[None])
    embedding: torch.Tensor = states.last_hidden_state[0].clone()
    return embedding
