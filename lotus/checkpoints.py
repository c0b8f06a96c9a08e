"""Lotus checkpoints: found, verified tensor by tensor, and loaded.

A checkpoint is a folder in the published layout (or the hub id of one): `unet/`, `vae/`, `text_encoder/`,
`tokenizer/`. Small models trained here have the empty prompt's embedding in place of the text encoder, and
may have an image encoder; the embedded one, `lotus-tiny`, comes with the package. Only safetensors are read;
a pickle can run code and is refused. Nothing is built by class name: the released checkpoints name four
pipeline classes, two of which exist nowhere.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lotus.modules import first_line, read_config, read_module
from recon.errors import InputError

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

    from lotus.image_encoder import ImageEncoder
    from lotus.model import LotusModel
    from lotus.vae import LotusVAE

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
IMAGE_ENCODER = "image_encoder/model.safetensors"  # of small models only, not in the published ones
PROMPT = "prompt.safetensors"  # the empty prompt's embedding where there is no text encoder
INDEX = "model_index.json"
CONFIGS = ("unet/config.json", "vae/config.json")
TEXT_CONFIG = "text_encoder/config.json"
ENCODER_CONFIG = "image_encoder/config.json"
EMBEDDED, EMBEDDED_NAMES = Path(__file__).parent / "weights", ("lotus-tiny",)
TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
DTYPES = ("float32", "float16", "bfloat16")
DEFAULT_RES = 768  # px, of the published checkpoints
MAX_STEPS = 1000  # timesteps of the training
TASKS = ("disparity", "depth", "normal")  # in this order: "lotus-depth-g-v2-1-disparity" emits disparity
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

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
    return layout(find_checkpoint(source)).is_generative


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


def tasks_of(source: str | Path) -> tuple[str, ...]:
    """Returns what a checkpoint draws: depth, disparity, normal; depth or disparity first if it is joint.

    Checkpoints trained here say it in model_index.json. The files of the published ones do not tell, for the
    networks are the same; it is taken from the name, and empty if the name does not say.
    """
    folder = EMBEDDED / str(source) if is_embedded(source) else Path(source).expanduser()
    if (folder / INDEX).is_file():
        said = read_config(folder / INDEX, {}).get("lotus", {}).get("tasks", ())
        if said:
            return tuple(said)
    task = task_of(source)
    return (task,) if task else ()


def processing_res_of(source: str | Path) -> int | None:
    """Returns the size that a checkpoint says it works best at, px; None if it does not say."""
    folder = EMBEDDED / str(source) if is_embedded(source) else Path(source).expanduser()
    said = read_config(folder / INDEX, {}).get("lotus", {}) if (folder / INDEX).is_file() else {}
    size: int | None = said.get("processing_res")
    return size


def is_embedded(source: str | Path) -> bool:
    """Returns True for the name of a checkpoint that comes with the package."""
    return str(source) in EMBEDDED_NAMES and not Path(source).is_dir()


def task_of(source: str | Path) -> str | None:
    """Returns what a checkpoint draws by its name: depth, disparity or normal; None if it does not say."""
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
    if is_embedded(source):
        path = EMBEDDED / str(source)
    folder = path.resolve() if path.is_dir() else _download(str(source))
    lacking = [name for name in (*_parts(folder), *_tokenizer(folder)) if not (folder / name).is_file()]
    for name in lacking:
        pickles = [file for file in (folder / name).parent.glob("*") if file.suffix in PICKLES]
        if name.endswith(".safetensors") and pickles:
            raise InputError(
                f"{pickles[0]}: a pickle can run code when it is loaded; wanted {Path(name).name}"
            )
    if lacking:
        raise InputError(f"{folder}: not a Lotus checkpoint, it lacks {', '.join(lacking)}")
    return folder


def _parts(folder: Path) -> tuple[str, ...]:
    """Returns the files that make a checkpoint's networks."""
    encoder = (ENCODER_CONFIG, IMAGE_ENCODER) if (folder / ENCODER_CONFIG).is_file() else ()
    prompt = (PROMPT,) if (folder / PROMPT).is_file() else (TEXT_CONFIG, TEXT_ENCODER)
    return (*CONFIGS, UNET, VAE, *encoder, *prompt)


def _tokenizer(folder: Path) -> tuple[str, ...]:
    return () if (folder / PROMPT).is_file() else TOKENIZER


@lru_cache(maxsize=8)  # the hub is asked once per process, not for every batch
def _download(source: str) -> Path:
    """Returns the local snapshot of a hub repository; an up-to-date cache is used as it is."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = source.partition("@")
    if not HUB_ID.fullmatch(name):
        raise InputError(f"{source}: no such folder, and not a hub id (owner/name)")
    patterns = [
        INDEX,
        *CONFIGS,
        UNET,
        VAE,
        TEXT_CONFIG,
        TEXT_ENCODER,
        "tokenizer/*",
        PROMPT,
        "image_encoder/*",
    ]
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
    stats = [(folder / name).stat() for name in _parts(folder)]
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
    unet = LotusUNet(read_unet(folder), embed_prompt(folder), steps)
    encoder = read_image_encoder(folder)
    return LotusModel(
        place(unet, options.device, options.dtype),
        vae,
        encoder and encoder.to(options.device).eval(),
        is_generative=layout(folder).is_generative,
        is_compiled=options.compile,
    )


@lru_cache(maxsize=2)
def _load_vae(files: _VaeFiles, options: _Options) -> "LotusVAE":
    from lotus.network import place
    from lotus.vae import LotusVAE

    return place(LotusVAE(read_vae(files.folder)), options.device, options.dtype)


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


def find_base(source: str | Path) -> Path:
    """Returns the folder of a checkpoint to train from: Lotus's, or plain Stable Diffusion 2's.

    Raises:
        InputError: As `find_checkpoint`.
    """
    return find_checkpoint(source)


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
    from safetensors.torch import load_file

    prompt = load_file(folder / PROMPT).get("prompt")
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
