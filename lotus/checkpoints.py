"""Lotus checkpoints: found, verified tensor by tensor, and loaded.

A checkpoint is a folder in the published layout (or the hub id of one): `unet/`, `vae/`, `text_encoder/`,
`tokenizer/`. Only safetensors are read; a pickle can run code and is refused. Nothing is built by class name:
the released checkpoints name four pipeline classes, two of which exist nowhere.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

    from lotus.model import LotusModel
    from lotus.vae import LotusVAE

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
CONFIGS = ("unet/config.json", "vae/config.json", "text_encoder/config.json")
TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
FLOATS = ("F16", "BF16", "F32", "F64")
DTYPES = ("float32", "float16", "bfloat16")
MAX_STEPS = 1000  # timesteps of the training
TASKS = ("disparity", "depth", "normal")  # in this order: "lotus-depth-g-v2-1-disparity" emits disparity
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

_DEPRECATED_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_UNET_FACTS = {
    "_class_name": ("UNet2DConditionModel",),
    "in_channels": (4, 8),
    "out_channels": (4,),
    "class_embed_type": ("projection",),
    "projection_class_embeddings_input_dim": (4,),
    "use_linear_projection": (True,),
    "resnet_time_scale_shift": ("default", None),
    "resnet_out_scale_factor": (1.0, None),
    "mid_block_scale_factor": (1, None),
}
_VAE_FACTS = {"_class_name": ("AutoencoderKL",), "in_channels": (3,), "latent_channels": (4,)}
_TEXT_FACTS = {"model_type": ("clip_text_model",)}


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
            device does not exist, or several steps are wanted of a model without noise.
    """
    place = resolve_device(device)
    if not 1 <= steps <= MAX_STEPS:
        raise InputError(f"{steps} steps, wanted 1 to {MAX_STEPS}")
    if steps > 1 and not is_generative(source):
        raise InputError(f"{source}: {steps} steps want a generative checkpoint (lotus-...-g-...)")
    folder, options = find_checkpoint(source), _Options(place, resolve_dtype(dtype, place), compile)
    return _load(folder, fingerprint(folder), options, steps)


def is_generative(source: str | Path) -> bool:
    """Returns True for Lotus-G, whose UNet takes noise beside the photo's latent.

    Raises:
        InputError: As `find_checkpoint`, or it is not Lotus's UNet.
    """
    channels = _read_config(find_checkpoint(source) / "unet/config.json", _UNET_FACTS)["in_channels"]
    return bool(channels == 8)


def task_of(source: str | Path) -> str | None:
    """Returns what a checkpoint draws by its name: depth, disparity or normal; None if the name does not say.

    The files do not tell: the networks are the same.
    """
    path = Path(source).expanduser()
    name = (path.resolve() if path.is_dir() else path).name.lower()
    return next((task for task in TASKS if task in name), None)


def resolve_device(device: "str | torch.device") -> "torch.device":
    """Returns the device of a name.

    Raises:
        InputError: There is no such device.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(
            f"device {str(device)!r}: not on this machine; wanted auto, cpu, cuda, ..."
        ) from error
    return place


def resolve_dtype(dtype: "str | torch.dtype", device: "torch.device") -> "torch.dtype":
    """Returns the number format of a name; "auto" chooses the fast one of the device.

    bfloat16 is what the authors' own script computes in on a CPU, so "auto" takes it where the CPU multiplies
    it in hardware; elsewhere it would be slower than float32.

    Raises:
        InputError: The name is unknown.
    """
    import torch

    if dtype == "auto":
        low = {"cuda": "float16", "cpu": "bfloat16" if cpu_has_bfloat16() else "float32"}
        dtype = low.get(device.type, "float32")
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise InputError(f"dtype {name!r}, wanted auto, {', '.join(DTYPES)}")
    found: torch.dtype = getattr(torch, name)
    return found


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Returns True where Linux lists bfloat16 products of the CPU (AVX512-BF16, AMX, Arm BF16)."""
    listing = Path("/proc/cpuinfo")
    flags = set(listing.read_text().split()) if listing.is_file() else set()
    return bool(flags & {"avx512_bf16", "amx_bf16", "bf16"})


def find_checkpoint(source: str | Path) -> Path:
    """Returns the folder of a checkpoint, from the hub or its cache where the source is a hub id.

    Raises:
        InputError: There is none, it lacks files, or it holds pickles only.
    """
    path = Path(source).expanduser()
    if path.suffix in PICKLES:
        raise InputError(f"{path}: a pickle can run code when it is loaded; wanted a folder with safetensors")
    if path.is_file():
        raise InputError(f"{path}: a file; wanted a folder with unet/, vae/, text_encoder/, tokenizer/")
    folder = path.resolve() if path.is_dir() else _download(str(source))
    wanted = (*CONFIGS, UNET, VAE, TEXT_ENCODER, *TOKENIZER)
    lacking = [name for name in wanted if not (folder / name).is_file()]
    for name in lacking:
        pickles = [file for file in (folder / name).parent.glob("*") if file.suffix in PICKLES]
        if name.endswith(".safetensors") and pickles:
            raise InputError(
                f"{pickles[0]}: a pickle can run code when it is loaded; wanted {Path(name).name}"
            )
    if lacking:
        raise InputError(f"{folder}: not a Lotus checkpoint, it lacks {', '.join(lacking)}")
    return folder


@lru_cache(maxsize=8)  # the hub is asked once per process, not for every batch
def _download(source: str) -> Path:
    """Returns the local snapshot of a hub repository; an up-to-date cache is used as it is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")
    patterns = [*CONFIGS, UNET, VAE, TEXT_ENCODER, "tokenizer/*"]
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"{source}: no such folder here, not in the Hugging Face cache, and the hub did not give it "
            f"({type(error).__name__}); download it where there is a network and pass its folder"
        ) from error


def fingerprint(source: str | Path) -> str:
    """Returns a digest of the sizes and times of a checkpoint's files; it changes when a file does.

    Raises:
        InputError: As `find_checkpoint`.
    """
    folder = find_checkpoint(source)
    stats = [(folder / name).stat() for name in (*CONFIGS, UNET, VAE, TEXT_ENCODER)]
    return sha256(repr([(stat.st_size, stat.st_mtime_ns) for stat in stats]).encode()).hexdigest()[:16]


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
    unet = LotusUNet(read_unet(folder), embed_empty_prompt(folder), steps)
    return LotusModel(place(unet, options.device, options.dtype), vae, is_compiled=options.compile)


@lru_cache(maxsize=2)
def _load_vae(files: _VaeFiles, options: _Options) -> "LotusVAE":
    from lotus.network import place
    from lotus.vae import LotusVAE

    return place(LotusVAE(read_vae(files.folder)), options.device, options.dtype)


def read_unet(folder: Path) -> Any:
    """Returns the verified UNet of a checkpoint folder, on the CPU, its weights mapped from the file."""
    from diffusers import UNet2DConditionModel

    config = _read_config(folder / "unet/config.json", _UNET_FACTS)
    return _read_module(folder / UNET, lambda: UNet2DConditionModel.from_config(config))


def read_vae(folder: Path) -> Any:
    """Returns the verified VAE of a checkpoint folder, on the CPU, its weights mapped from the file."""
    from diffusers import AutoencoderKL

    config = _read_config(folder / "vae/config.json", _VAE_FACTS)
    return _read_module(folder / VAE, lambda: AutoencoderKL.from_config(config))


def embed_empty_prompt(folder: Path) -> "Float32[torch.Tensor, '2 c']":
    """Returns the text embedding of the empty prompt, the only one that Lotus ever sees.

    Two tokens, begin and end, without padding to 77; the text encoder is freed on return.

    Raises:
        InputError: Text encoder or tokenizer are damaged.
    """
    import torch
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    config = _read_config(folder / "text_encoder/config.json", _TEXT_FACTS)
    encoder = (
        _read_module(folder / TEXT_ENCODER, lambda: CLIPTextModel(CLIPTextConfig(**config))).float().eval()
    )
    try:
        tokens = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)("").input_ids
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{folder / 'tokenizer'}: cannot be read: {_first_line(error)}") from error
    if len(tokens) != 2 or max(tokens) >= config["vocab_size"]:
        raise InputError(
            f"{folder / 'tokenizer'}: the empty prompt is {tokens}, wanted a begin and an end token"
        )
    with torch.inference_mode():
        states = encoder(torch.tensor([tokens]), position_ids=torch.arange(2)[None])
    embedding: torch.Tensor = states.last_hidden_state[0].clone()
    return embedding


def _read_config(file: Path, facts: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Returns a component's config after checking what makes it Lotus's."""
    try:
        config = json.loads(file.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{file}: not JSON: {_first_line(error)}") from error
    if not isinstance(config, dict):
        raise InputError(f"{file}: a JSON {type(config).__name__}, wanted an object")
    for key, allowed in facts.items():
        if config.get(key) not in allowed:
            wanted = " or ".join(repr(value) for value in allowed)
            raise InputError(f"{file}: {key} is {config.get(key)!r}, in a Lotus checkpoint it is {wanted}")
    return config


def _read_module(file: Path, build: Callable[[], Any]) -> Any:
    """Returns the module that `build` makes, with the weights of a file; every tensor must fit."""
    import torch
    from safetensors.torch import load_file

    config = file.parent / "config.json"
    try:
        with torch.device("meta"):
            module = build()
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{config}: no network can be built from it: {_first_line(error)}") from error
    shapes = {_canonical(name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    _check_weights(file, shapes)
    weights = {_canonical(name): tensor for name, tensor in load_file(file).items()}
    module.load_state_dict({name: weights[_canonical(name)] for name in module.state_dict()}, assign=True)
    return module.eval().requires_grad_(False)


def _canonical(name: str) -> str:
    """Returns a tensor's name as today's libraries write it: older ones named attention otherwise."""
    parts = name.removeprefix("text_model.").split(".")
    if "attentions" in parts:
        parts = [_DEPRECATED_NAMES.get(part, part) for part in parts]
    return ".".join(parts)


def _check_weights(file: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raises InputError for the first tensor that is truncated, missing, unknown or of another shape."""
    header, size = _read_header(file)
    for name, entry in header.items():
        if entry["data_offsets"][1] > size:
            raise InputError(f"{file}: truncated, tensor {name} ends after the file's end")
        if entry["dtype"] not in FLOATS:
            raise InputError(f"{file}: tensor {name} is {entry['dtype']}, wanted one of {', '.join(FLOATS)}")
    found = {_canonical(name): tuple(entry["shape"]) for name, entry in header.items()}
    missing = [name for name in shapes if name not in found]
    if missing:
        raise InputError(f"{file}: tensor {missing[0]} is missing ({len(missing)} of {len(shapes)} are)")
    unknown = [name for name in found if name not in shapes]
    if unknown:
        raise InputError(f"{file}: tensor {unknown[0]} has no place in the network of config.json")
    for name, shape in shapes.items():
        if found[name] != shape:
            raise InputError(f"{file}: tensor {name} has shape {found[name]}, config.json says {shape}")


def _read_header(file: Path) -> tuple[dict[str, Any], int]:
    """Returns the tensor table of a safetensors file, and how many bytes of tensors really follow it."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise InputError(f"{file}: not a safetensors file, or truncated in its header ({size} bytes)")
        try:
            table = json.loads(stream.read(length))
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise InputError(f"{file}: not a safetensors file: {_first_line(error)}") from error
    entries = {
        name: entry
        for name, entry in table.items()
        if name != "__metadata__" and not name.endswith("position_ids")  # a constant that old CLIP files hold
    }
    return entries, size - 8 - length


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
