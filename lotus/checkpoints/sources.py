"""Where a checkpoint is, that its files are there, and what its name and index say of it."""

import re
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from lotus.colours import AS_THEY_ARE, COLOURS
from lotus.modules import read_config
from recon.errors import InputError

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT_ENCODER = "text_encoder/model.safetensors"
IMAGE_ENCODER = "image_encoder/model.safetensors"  # of small models only, not in the published ones
PROMPT = "prompt.safetensors"  # the empty prompt's embedding where there is no text encoder
INDEX = "model_index.json"
CONFIGS = ("unet/config.json", "vae/config.json")
TEXT_CONFIG = "text_encoder/config.json"
ENCODER_CONFIG = "image_encoder/config.json"
EMBEDDED, EMBEDDED_NAMES = Path(__file__).parents[1] / "weights", ("lotus-tiny",)
TOKENIZER = ("tokenizer/vocab.json", "tokenizer/merges.txt")
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
DEFAULT_RES = 768  # px, of the published checkpoints
TASKS = ("disparity", "depth", "normal")  # in this order: "lotus-depth-g-v2-1-disparity" emits disparity
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


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
    """Returns a digest of the sizes and times of a checkpoint's files, and how it sees colours.

    Raises:
        InputError: As `find_checkpoint`.
    """
    folder = find_checkpoint(source)
    stats = [(folder / name).stat() for name in _parts(folder)]
    files = [(stat.st_size, stat.st_mtime_ns) for stat in stats]
    return sha256(repr((files, colours_of(folder))).encode()).hexdigest()[:16]


def tasks_of(source: str | Path) -> tuple[str, ...]:
    """Returns what a checkpoint draws: depth, disparity, normal; depth or disparity first if it is joint.

    Checkpoints trained here say it in model_index.json. The files of the published ones do not tell, for the
    networks are the same; it is taken from the name, and empty if the name does not say.
    """
    said, task = _said_by(source).get("tasks", ()), task_of(source)
    return tuple(said) or ((task,) if task else ())


def check_task(source: str | Path, task: str) -> None:
    """Checks that a checkpoint draws a task, as far as its index says what it draws.

    Raises:
        InputError: It says others.
    """
    said = _said_by(source).get("tasks", ())
    if said and task not in said:
        raise InputError(f"{source}: says it draws {' and '.join(said)}, wanted {task}")


def processing_res_of(source: str | Path) -> int | None:
    """Returns the size that a checkpoint says it works best at, px; None if it does not say."""
    size: int | None = _said_by(source).get("processing_res")
    return size


def prediction_of(source: str | Path) -> str:
    """Returns what a checkpoint's network gives: x0, the clean latent, or the noise (eps) or velocity (v)."""
    prediction: str = _said_by(source).get("prediction", "x0")
    return prediction


def colours_of(source: str | Path) -> str:
    """Returns how a checkpoint sees the colours of photos, a word of `lotus.colours`.

    Raises:
        InputError: It says another.
    """
    colours: str = _said_by(source).get("colours", AS_THEY_ARE)
    if colours not in COLOURS:
        raise InputError(f"{source}: colours {colours!r}, wanted one of {', '.join(COLOURS)}")
    return colours


def _said_by(source: str | Path) -> dict[str, Any]:
    """Returns what a checkpoint that was trained here says of itself; empty for others."""
    folder = EMBEDDED / str(source) if is_embedded(source) else Path(source).expanduser()
    said: dict[str, Any] = {}
    if (folder / INDEX).is_file():
        said = read_config(folder / INDEX, {}).get("lotus", {})
    return said


def is_embedded(source: str | Path) -> bool:
    """Returns True for the name of a checkpoint that comes with the package."""
    return str(source) in EMBEDDED_NAMES and not Path(source).is_dir()


def task_of(source: str | Path) -> str | None:
    """Returns what a checkpoint draws by its name: depth, disparity or normal; None if it does not say."""
    path = Path(source).expanduser()
    name = (path.resolve() if path.is_dir() else path).name.lower()
    return next((task for task in TASKS if task in name), None)
