"""What a training is: nested dataclasses, read from TOML; the same names are flags of `lotus train`."""

import difflib
import math
import tomllib
import typing
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from lotus.colours import COLOURS
from lotus.network import TIMESTEPS
from lotus.predictor import MIN_PROCESSING_RES
from lotus.training.targets import NORM_TYPES
from recon.errors import InputError

Sizes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Networks:
    """Where the networks come from. Sizes count only for those made from scratch."""

    init: str = "stabilityai/stable-diffusion-2-base"
    """Stable Diffusion 2 or a Lotus checkpoint, folder or hub id; "" makes the UNet from scratch."""

    vae: str = ""
    """Folder with vae/ for a UNet from scratch."""

    image_encoder: str = ""
    """safetensors with the trunk of the image encoder, for a UNet from scratch; "" for none."""

    colours: str = ""
    """How they see the colours of photos: rgb, bgr and so on, grey, or with "-" before it the negative. auto:
    as the checkpoint, untrained, errs least on photos of the training. "" leaves what the checkpoint says."""

    unet_channels: tuple[int, ...] = (48, 80, 128)
    unet_heads: tuple[int, ...] = (3, 5, 8)
    unet_layers: int = 1
    unet_groups: int = 16
    prompt_channels: int = 64
    feature_channels: tuple[int, ...] = (32, 32, 32)
    """Channels that the image encoder's maps at strides 8, 16 and 32 are projected to."""

    vae_channels: tuple[int, ...] = (8, 16, 32, 64)
    vae_groups: int = 1
    latent_channels: int = 16
    linear_encoder: bool = False
    """Fixes the autoencoder's encoder to principal components of patches, so that only its decoder learns."""

    trunk_rate: float = 0.0
    """Share of the learning rate at which the image encoder's trunk learns; 0 freezes it. Not from
    shards."""

    decoder_rate: float = 0.0
    """Share of the learning rate at which the autoencoder's decoder learns from the pixel losses; 0 freezes
    it."""


@dataclass(frozen=True)
class Data:
    """The samples."""

    sources: tuple[str, ...] = ("scenes",)
    """scenes: rendered ones; or data sets: hypersim:FOLDER, vkitti:FOLDER, folder:FOLDER; restyled:FOLDER:
    rendered scenes that look like the photos of folder:FOLDER, which alone would be learned by heart."""

    lists: tuple[str, ...] = ()
    """For each data set a file with the names of the samples to take, as `lotus verify --list` writes it; ""
    takes all. Default: all of each."""

    shares: tuple[float, ...] = ()
    """Of batches that come from each data set; the paper's are 0.9 and 0.1. Default: equal."""

    sizes: Sizes = ((768, 576),)
    """Sizes of the pictures (width, height): of scenes, which take them in turn, or of each data set."""

    shards: str = ""
    """Folder of shards, rendered and encoded beforehand or at the same time; "" makes samples as needed."""

    shard_size: int = 64
    first: int = 0
    """Index (a scene's seed) of the first sample."""

    validation_first: int = 10_000_000
    """Index of the first held-out sample."""

    validation: int = 32
    """Held-out samples."""

    validation_set: str = ""
    """Data set that they come from, LAYOUT:FOLDER, of the first size; "" takes scenes."""

    workers: int = 0
    """Processes that make samples; 0 makes them in the training's own."""

    pool: int = 0
    """Batches of scenes rendered on the training's own device, many at once, and kept there; 0 renders one by
    one on the CPU. Workers then lay out the scenes."""

    reuse: int = 1
    """Batches drawn from the pool per batch rendered anew; each draw is another photo of the same scene."""


@dataclass(frozen=True)
class Loss:
    """What is minimised: the defaults are the paper's."""

    prediction: Literal["x0", "v", "eps"] = "x0"
    timesteps: int = 1
    """Timesteps trained, spread evenly down from the last; 1 is Lotus's, 1000 ordinary diffusion."""

    norm_type: str = "trunc_disparity"
    """How depth is drawn: instnorm, truncnorm, perscene_norm, disparity, trunc_disparity."""

    latent: float = 1.0
    """Weight of the annotations' latent error."""

    reconstruction: float = 1.0
    """Weight of the detail preserver: the photo's own latent, behind the reconstruction switch."""

    reconstruction_rows: float = 1.0
    """Rows that reconstruct, per row that annotates."""

    pixel_rows: int = 0
    """Rows of a batch that are decoded as well and compared as pictures."""

    pixel_crop: int = 12
    """Side of the part that is decoded, latent cells."""

    pixel: float = 1.0
    """Weight of L1 of drawn disparity or depth."""

    normal: float = 1.0
    """Weight of the sine of half the angle between drawn normals and true ones."""

    pixel_floor: float = 0.0
    """Where above 0, L1 of disparity is divided by the true map, from 0 far to 1 near, plus this: errors of
    far things then count as they do in relative depth. Rescaled to a mean of 1 over even disparities."""

    pixel_gradient: float = 2.0
    """Weight of L1 of differences of neighbouring pixels, disparity or depth only."""

    def __post_init__(self) -> None:
        if self.norm_type not in NORM_TYPES:
            raise InputError(f"loss.norm_type {self.norm_type!r}, wanted one of {', '.join(NORM_TYPES)}")


@dataclass(frozen=True)
class Optimizer:
    """AdamW: the defaults are the paper's."""

    learning_rate: float = 3e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    warmup: int = 0
    """Steps of linear warm-up."""

    cosine: bool = False
    """Falls to `final_share` of the rate along a half cosine; else the rate stays."""

    final_share: float = 0.02
    clip: float = 1.0
    """Largest norm of the gradient."""

    ema: float = 0.0
    """Decay of the moving average of the weights, which is what is saved; 0 for none."""

    start_share: float = 0.0
    """Share of the weights that the training began with in what is saved: a mean of both can be better than
    either (Wortsman et al. 2022, arXiv 2109.01903)."""

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"optimizer.learning_rate {self.learning_rate}, wanted more than 0")
        for name, value in (
            ("betas", self.betas[0]),
            ("betas", self.betas[1]),
            ("ema", self.ema),
            ("start_share", self.start_share),
        ):
            if not 0 <= value < 1:
                raise InputError(f"optimizer.{name} {value}, wanted at least 0 and below 1")


@dataclass(frozen=True)
class Train:
    """Trains Lotus, or the small autoencoder of a Lotus from scratch, and writes checkpoints as published.

    OUT then holds step_NNNNNNN/ (unet/, vae/, ... as published, and training/ to go on from), log.jsonl and
    pictures of held-out samples. The same command goes on where it was interrupted, as if it had not been.
    """

    out: Path = Path("lotus-training")
    """Folder for checkpoints, log and pictures."""

    part: Literal["unet", "vae", "shards"] = "unet"
    """unet: Lotus itself. vae: the autoencoder of a small one. shards: renders and encodes `data.shards`."""

    tasks: tuple[Literal["disparity", "depth", "normal"], ...] = ("disparity",)
    """What one network draws; several make a joint model with a task switch."""

    generative: bool = False
    """Lotus-G, which sees noise beside the photo; else Lotus-D."""

    steps: int = 4000
    minutes: float = 0.0
    """Ends the training after this time if that is sooner than its steps, and lets the rate fall by then: for
    a machine that is lent. Such a training cannot be repeated exactly. 0: no limit."""

    batch_size: int = 16
    accumulate: int = 1
    """Batches per step, in each process."""

    seed: int = 42
    device: str = "auto"
    precision: Literal["float32", "float16", "bfloat16"] = "float32"
    """What the networks compute in while they train (autocast); weights are float32."""

    gradient_checkpointing: bool = False
    graphs: bool = False
    """On a GPU, records loss and gradient as CUDA graphs and replays them: faster for a small network."""

    save_every: int = 500
    validate_every: int = 500
    keep: int = 2
    """Checkpoints that are kept."""

    half: bool = False
    """Writes the networks in float16, half the size; what a training goes on from stays float32."""

    processing_res: int = 0
    """Size, px, that the checkpoint asks to be used at, written into it; 0: as networks.init, or 768."""

    networks: Networks = field(default_factory=Networks)
    data: Data = field(default_factory=Data)
    loss: Loss = field(default_factory=Loss)
    optimizer: Optimizer = field(default_factory=Optimizer)

    def __post_init__(self) -> None:
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InputError(f"tasks {self.tasks}: wanted some, each once")
        if "normal" in self.tasks[:-1] or len(self.tasks) > 2:
            raise InputError(f"tasks {self.tasks}: wanted one, or depth or disparity and then normal")
        if self.loss.prediction != "x0" and not self.generative:
            raise InputError(f"prediction {self.loss.prediction} wants noise: generative = true")
        for task in self.tasks:
            if task != "normal" and (task == "disparity") != ("disparity" in self.loss.norm_type):
                raise InputError(f"task {task} and norm_type {self.loss.norm_type} do not go together")
        for name in ("steps", "batch_size", "accumulate", "save_every", "validate_every", "keep"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} {getattr(self, name)}, wanted at least 1")
        self._check_ranges()
        for width, height in self.data.sizes:
            if width % 8 or height % 8 or min(width, height) < 8:
                raise InputError(f"size {width}x{height}, wanted multiples of 8")
        if self.graphs and self.gradient_checkpointing:
            raise InputError("graphs and gradient_checkpointing do not go together")
        self._check_pool()
        colours = self.networks.colours
        if colours not in ("", "auto", *COLOURS):
            raise InputError(f"networks.colours {colours!r}, wanted auto or one of {', '.join(COLOURS)}")
        if colours == "auto" and (not self.networks.init or self.part != "unet"):
            raise InputError("networks.colours auto is for the unet of a checkpoint, networks.init")

    def _check_ranges(self) -> None:
        data, loss = self.data, self.loss
        for name, value, least in (
            ("minutes", self.minutes, 0),
            ("seed", self.seed, 0),
            ("processing_res", self.processing_res, MIN_PROCESSING_RES if self.processing_res else 0),
            ("data.workers", data.workers, 0),
            ("data.validation", data.validation, 0),
            ("loss.timesteps", loss.timesteps, 1),
            ("loss.reconstruction_rows", loss.reconstruction_rows, 0),
            ("loss.pixel_rows", loss.pixel_rows, 0),
            ("loss.pixel_crop", loss.pixel_crop, min(loss.pixel_rows, 1)),
        ):
            if not value >= least:  # NaN neither
                raise InputError(f"{name} {value}, wanted at least {least}")
        if loss.timesteps > TIMESTEPS:
            raise InputError(f"loss.timesteps {loss.timesteps}, wanted 1 to {TIMESTEPS}")
        if not data.sizes:
            raise InputError("data.sizes is empty, wanted a width and height at least")

    def _check_pool(self) -> None:
        if self.data.reuse < 1:
            raise InputError(f"data.reuse {self.data.reuse}, wanted at least 1")
        if self.networks.trunk_rate and self.data.shards:
            raise InputError("networks.trunk_rate and data.shards: shards hold what a frozen trunk sees")
        if self.networks.decoder_rate and not self.loss.pixel_rows:
            raise InputError("networks.decoder_rate wants loss.pixel_rows, which the decoder learns from")
        if self.data.pool and self.batch_size % len(self.tasks):
            raise InputError(
                f"batch_size {self.batch_size}, wanted a multiple of the {len(self.tasks)} tasks, "
                "all of which a photo of data.pool draws"
            )
        if self.data.pool and (self.data.sources != ("scenes",) or self.data.shards):
            raise InputError("data.pool is for scenes alone, rendered as they are needed")


def read_config(file: Path) -> Train:
    """Returns the training that a TOML file describes; what it does not say is default.

    Raises:
        InputError: It cannot be read, or a key or value does not fit.
    """
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{file}: cannot read ({error.strerror})") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{file}: no TOML ({error})") from error
    found: Train = _build(Train, table, str(file))
    return found


def _build(kind: Any, table: dict[str, Any], place: str) -> Any:
    """Returns a dataclass from a table."""
    hints = typing.get_type_hints(kind)
    known = [each.name for each in fields(kind)]
    values = {}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            raise InputError(f"{place}: no option {name!r}" + (f", did you mean {near[0]}?" if near else ""))
        values[name] = _convert(hints[name], value, f"{place}: {name}")
    return kind(**values)


def _convert(hint: Any, value: Any, place: str) -> Any:
    """Returns a TOML value as the type of its field."""
    if is_dataclass(hint) and isinstance(value, dict):
        return _build(hint, value, place)
    if typing.get_origin(hint) is Literal and value in typing.get_args(hint):
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, list):
        kinds = typing.get_args(hint)
        each = [kinds[0]] * len(value) if kinds[-1] is ... else list(kinds)
        if len(each) == len(value):
            return tuple(_convert(kind, part, place) for kind, part in zip(each, value, strict=True))
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is float and type(value) is int:
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise InputError(f"{place} is {value!r}, wanted {wanted}")
