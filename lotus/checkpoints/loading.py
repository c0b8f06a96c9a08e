"""The model of a checkpoint on a device; those used last stay in memory."""

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from lotus.checkpoints.reading import (
    embed_prompt,
    is_generative,
    layout,
    read_image_encoder,
    read_unet,
    read_vae,
)
from lotus.checkpoints.sources import VAE, colours_of, find_checkpoint, fingerprint, prediction_of
from lotus.devices import resolve_device, resolve_dtype
from recon.errors import InputError

if TYPE_CHECKING:
    import torch

    from lotus.model import LotusModel
    from lotus.vae import LotusVAE

MAX_STEPS = 1000  # timesteps of the training


def load(
    source: str | Path,
    device: "str | torch.device" = "auto",
    dtype: "str | torch.dtype" = "float32",
    *,
    steps: int = 1,
    compile: bool = False,
) -> "LotusModel":
    """Returns the model of a checkpoint, ready for inference.

    The two models used last stay in memory: the same checkpoint, device and dtype give the same object, and
    checkpoints whose VAE files are equal share one VAE.

    Args:
        source: A folder in the published layout or a hub id such as `jingheya/lotus-depth-d-v2-0-disparity`
            (`@revision` may follow).
        device: "auto" is CUDA where there is one, else the CPU; or a device's name.
        dtype: "float32" is the parity setting. "auto" is float16 on CUDA and, as the reference does, bfloat16
            on CPUs that have the instructions for it. Also "float16", "bfloat16".
        steps: Denoising steps of a generative model. The published ones were trained for one.
        compile: Compile the networks (torch.compile) when a size is first seen; kernels are kept on disk.

    Raises:
        InputError: The source is not a Lotus checkpoint, a file is damaged, the hub cannot be reached, the
            device does not exist, several steps are wanted of a model without noise, or it was trained to
            give noise or velocity (for the paper's ablation).
    """
    place = resolve_device(device)
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps, wanted 1 to {MAX_STEPS}")
    if steps > 1 and not is_generative(source):
        raise InputError(f"{source}: {steps} steps want a generative checkpoint (lotus-...-g-...)")
    folder, options = find_checkpoint(source), _Options(place, resolve_dtype(dtype, place), compile)
    if prediction_of(folder) != "x0":
        raise InputError(
            f"{source}: was trained to give {prediction_of(folder)}, wanted x0, the clean latent"
        )
    return _load(folder, fingerprint(folder), options, steps)


@dataclass(frozen=True)
class _VaeFiles:
    """A VAE on disk; equal content is equal, wherever it lies."""

    digest: str
    folder: Path = field(compare=False)


@dataclass(frozen=True)
class _Options:
    """How networks are loaded."""

    device: "torch.device"
    dtype: "torch.dtype"
    compile: bool


@lru_cache(maxsize=2)  # a depth and a normal model
def _load(folder: Path, files: str, options: _Options, steps: int) -> "LotusModel":
    """Loads a checkpoint; `files`, its fingerprint, only tells apart the versions of a folder."""
    from lotus.model import LotusModel
    from lotus.network import LotusUNet, place

    digest = sha256((folder / "vae/config.json").read_bytes())
    digest.update((folder / VAE).read_bytes())
    vae = _load_vae(_VaeFiles(digest.hexdigest(), folder), options)
    unet = LotusUNet(read_unet(folder), embed_prompt(folder), steps)
    encoder = read_image_encoder(folder)
    return LotusModel(
        place(unet, options.device, options.dtype),
        vae,
        encoder and encoder.to(options.device).eval(),
        is_generative=layout(folder).is_generative,
        colours=colours_of(folder),
        is_compiled=options.compile,
    )


@lru_cache(maxsize=2)
def _load_vae(files: _VaeFiles, options: _Options) -> "LotusVAE":
    from lotus.network import place
    from lotus.vae import LotusVAE

    return place(LotusVAE(read_vae(files.folder)), options.device, options.dtype)
