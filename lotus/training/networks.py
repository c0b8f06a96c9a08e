"""The networks that are trained: of a checkpoint and adapted, or made from scratch; and written back."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import nn

from lotus.checkpoints import (
    IMAGE_ENCODER,
    PROMPT,
    UNET,
    VAE,
    colours_of,
    embed_prompt,
    find_checkpoint,
    read_image_encoder,
    read_unet_weights,
    read_vae,
)
from lotus.colours import AS_THEY_ARE
from lotus.image_encoder import CLASS_NAME, ImageEncoder
from lotus.training import config
from lotus.training.linear_encoder import skip_silent
from recon.errors import InputError

FEATURE_SCALES = (7.0, 4.0, 1.75)  # standard deviation of the trunk's maps on photos
PROMPT_SEED = 0
FROZEN = ("text_encoder", "tokenizer", "scheduler", "feature_extractor")


@dataclass(frozen=True)
class Networks:
    """The parts of a Lotus in training; diffusers' own classes."""

    unet: Any
    vae: Any
    image_encoder: ImageEncoder | None
    prompt: Float32[torch.Tensor, "n c"]
    origin: Path | None
    """Checkpoint folder whose frozen parts go into what is written; None from scratch."""

    tasks: tuple[str, ...]
    colours: str = AS_THEY_ARE
    """How they see the colours of photos."""

    def trainable(self) -> nn.ModuleDict:
        """Returns what can be trained: the UNet, image encoder and decoder, as far as they are not frozen."""
        parts = {"unet": self.unet}
        if self.image_encoder is not None:
            parts |= {"projections": self.image_encoder.projections, "trunk": self.image_encoder.trunk()}
        return nn.ModuleDict(parts | {"decoder": decoder_of(self.vae)})

    def trunk_learns(self) -> bool:
        """Returns whether the image encoder's trunk is trained, so that its features change."""
        if self.image_encoder is None:
            return False
        return any(part.requires_grad for part in self.image_encoder.trunk().parameters())


def build(options: config.Train, device: torch.device) -> Networks:
    """Returns the networks that a training starts with.

    Raises:
        InputError: The checkpoint to start from cannot be loaded or adapted.
    """
    torch.manual_seed(options.seed)
    found = _from_scratch(options) if not options.networks.init else _from_checkpoint(options)
    found = replace(found, prompt=found.prompt.to(device))
    for part in (found.vae, found.image_encoder):
        if part is not None:
            part.requires_grad_(False).eval().to(device)
    if found.image_encoder is not None:
        found.image_encoder.trunk().requires_grad_(options.networks.trunk_rate > 0)
        found.image_encoder.projections.requires_grad_(True)
    skip_silent(found.vae.encoder)
    decoder_of(found.vae).requires_grad_(options.networks.decoder_rate > 0)
    found.unet.float().requires_grad_(True).train().to(device)
    if options.gradient_checkpointing:
        found.unet.enable_gradient_checkpointing()
    return found


def decoder_of(vae: Any) -> nn.ModuleList:
    """Returns what turns latents into pictures."""
    return nn.ModuleList([vae.post_quant_conv, vae.decoder])


def build_vae(sizes: config.Networks) -> Any:
    """Returns a small autoencoder, a plain `AutoencoderKL` without attention, from scratch."""
    from diffusers import AutoencoderKL

    levels = len(sizes.vae_channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.vae_channels,
        layers_per_block=1,
        latent_channels=sizes.latent_channels,
        norm_num_groups=sizes.vae_groups,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )


def _from_scratch(options: config.Train) -> Networks:
    """Returns a UNet of the wanted sizes on a given autoencoder; no attention at the finest level."""
    from diffusers import UNet2DConditionModel

    sizes = options.networks
    lacking = [name for name in ("vae/config.json", VAE) if not (Path(sizes.vae) / name).is_file()]
    if lacking:
        raise InputError(
            f"networks.vae {sizes.vae!r}: no {lacking[0]} there; "
            "a UNet from scratch wants --networks.vae FOLDER"
        )
    vae = read_vae(Path(sizes.vae)).float()
    latent = int(vae.config.latent_channels)
    encoder = _trunk(sizes) if sizes.image_encoder else None
    attending = len(sizes.unet_channels) - 1
    unet = UNet2DConditionModel(
        in_channels=latent + (encoder.channels if encoder else 0) + latent * options.generative,
        out_channels=latent,
        block_out_channels=sizes.unet_channels,
        layers_per_block=sizes.unet_layers,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
        attention_head_dim=sizes.unet_heads,
        cross_attention_dim=sizes.prompt_channels,
        norm_num_groups=sizes.unet_groups,
        use_linear_projection=True,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=2 * (len(options.tasks) + 1),
    )
    prompt = torch.randn(2, sizes.prompt_channels, generator=torch.Generator().manual_seed(PROMPT_SEED))
    return Networks(unet, vae, encoder, prompt, None, options.tasks, sizes.colours or AS_THEY_ARE)


def _trunk(sizes: config.Networks) -> ImageEncoder:
    """Returns the image encoder with the trunk of a file and fresh projections."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    encoder = ImageEncoder(sizes.feature_channels)
    file = Path(sizes.image_encoder)
    try:
        weights = {name: part.float() for name, part in load_file(file).items()}
        trunk = {name: part for name, part in weights.items() if not name.startswith("projections")}
        missing, unknown = encoder.load_state_dict(trunk, strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{file}: not the trunk of the image encoder ({error})") from error
    if unknown or any(not name.startswith("projections") for name in missing):
        raise InputError(f"{file}: not the trunk of the image encoder")
    for projection, scale in zip(encoder.projections, FEATURE_SCALES, strict=True):
        assert isinstance(projection, nn.Conv2d)
        nn.init.normal_(projection.weight, std=1 / (scale * float(projection.in_channels) ** 0.5))
        assert projection.bias is not None
        nn.init.zeros_(projection.bias)
    return encoder


def _from_checkpoint(options: config.Train) -> Networks:
    folder = find_checkpoint(options.networks.init)
    vae, encoder = read_vae(folder), read_image_encoder(folder)
    settings, weights = read_unet_weights(folder)
    unet = adapt_unet(settings, weights, options, encoder.channels if encoder else 0)
    colours = options.networks.colours or colours_of(folder)
    return Networks(unet, vae.float(), encoder, embed_prompt(folder), folder, options.tasks, colours)


def adapt_unet(
    settings: dict[str, Any], weights: dict[str, torch.Tensor], options: config.Train, features: int
) -> Any:
    """Returns the UNet of a checkpoint with Lotus's input and task vector.

    From D to G the input convolution's weight is repeated for the noise and halved, its bias kept, as the
    authors do; so equal inputs give what one gave. A task embedding of another size starts afresh.

    Args:
        settings: The checkpoint's config.
        weights: The checkpoint's weights.
        options: What is trained.
        features: Channels of the image encoder's maps.

    Raises:
        InputError: The checkpoint takes noise and the training does not.
    """
    from diffusers import UNet2DConditionModel

    latent = int(settings["out_channels"])
    wanted = latent * (1 + options.generative) + features
    given = int(settings["in_channels"])
    kernel = weights["conv_in.weight"]
    if given > wanted:
        raise InputError(
            f"{options.networks.init}: its UNet takes {given} channels, with noise; "
            f"generative = true trains such a one, this training wants {wanted}"
        )
    if given < wanted:
        kernel = torch.cat([kernel, kernel[:, :latent]], dim=1)
        kernel[:, :latent] *= 0.5
        kernel[:, -latent:] *= 0.5
    tasks = 2 * (len(options.tasks) + 1)
    is_same = (
        settings.get("class_embed_type") == "projection"
        and settings.get("projection_class_embeddings_input_dim") == tasks
    )
    changed = {
        "in_channels": wanted,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": tasks,
    }
    unet = UNet2DConditionModel.from_config({**settings, **changed})
    kept = {
        name: part for name, part in weights.items() if is_same or not name.startswith("class_embedding.")
    }
    missing, unknown = unet.load_state_dict({**kept, "conv_in.weight": kernel}, strict=False)
    if unknown or any(not name.startswith("class_embedding.") for name in missing):
        raise InputError(f"{options.networks.init}: weights and config of its UNet do not fit")
    return unet


def write_networks(
    networks: Networks,
    folder: Path,
    processing_res: int,
    dtype: torch.dtype = torch.float32,
    *,
    prediction: str = "x0",
) -> None:
    """Writes a checkpoint in the published layout; frozen files of the origin are linked."""
    write_part(networks.unet, folder / UNET, dtype)
    write_part(networks.vae, folder / VAE, dtype)
    if networks.image_encoder is not None:
        settings = {"_class_name": CLASS_NAME, "channels": _channels(networks.image_encoder)}
        (folder / IMAGE_ENCODER).parent.mkdir(parents=True, exist_ok=True)
        (folder / IMAGE_ENCODER).parent.joinpath("config.json").write_text(json.dumps(settings, indent=2))
        _save(networks.image_encoder, folder / IMAGE_ENCODER, dtype)
    frozen = [part for part in FROZEN if networks.origin is not None and (networks.origin / part).is_dir()]
    for part in frozen:
        assert networks.origin is not None
        shutil.copytree(networks.origin / part, folder / part, copy_function=_link)
    if "text_encoder" not in frozen:
        from safetensors.torch import save_file

        save_file({"prompt": networks.prompt.cpu().contiguous()}, folder / PROMPT)
    said: dict[str, int | str] = {
        "processing_res": processing_res,
        "prediction": prediction,
        "colours": networks.colours,
    }
    _write_index(networks, folder, said)


def _write_index(networks: Networks, folder: Path, said: dict[str, int | str]) -> None:
    """Writes model_index.json: diffusers' list of parts, and what the files do not say."""
    latent = int(networks.vae.config.latent_channels)
    features = networks.image_encoder.channels if networks.image_encoder else 0
    is_generative = networks.unet.config.in_channels > latent + features
    index: dict[str, Any] = {
        "_class_name": "LotusGPipeline" if is_generative else "LotusDPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "lotus": {"tasks": list(networks.tasks), **said},
    }
    if (folder / "text_encoder").is_dir():
        index["text_encoder"] = ["transformers", "CLIPTextModel"]
        index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    (folder / "model_index.json").write_text(json.dumps(index, indent=2))


def write_part(module: Any, file: Path, dtype: torch.dtype = torch.float32) -> None:
    """Writes a module of diffusers as its own `save_pretrained` names it."""
    module.save_config(file.parent)
    _save(module, file, dtype)


def _save(module: nn.Module, file: Path, dtype: torch.dtype) -> None:
    from safetensors.torch import save_file

    weights = {
        name: part.detach().to("cpu", dtype).contiguous() for name, part in module.state_dict().items()
    }
    save_file(weights, file, metadata={"format": "pt"})


def _channels(encoder: ImageEncoder) -> list[int]:
    return [part.out_channels for part in encoder.projections if isinstance(part, nn.Conv2d)]


def _link(source: str, target: str) -> None:
    """Links a file where that can be, so that checkpoints share a frozen text encoder; else copies it."""
    try:
        os.link(os.path.realpath(source), target)
    except OSError:
        shutil.copyfile(source, target)
