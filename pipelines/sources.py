"""What a run is given: photos by content, and what a scene says of each view, as recipes."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from pipelines.graph import Recipe, digest
from recon.backdrop import black_backdrop
from recon.errors import InputError, ViewError
from recon.io import colmap, images
from recon.scene import Camera, Lens, Scene, SparseDepth, View

READ_BYTES = 1 << 22
THUMBNAIL, BACKDROP_SIZE = 256, 1600  # longest sides of photos in which backdrops are found, px
BACKDROP_PHOTOS = 16  # that tell whether there are any
MAX_ASPECT_ERROR = 0.02  # relative, of sides' ratios
MAX_ROUNDING_PX = 8  # of a side: predictors round to multiples of 8 or so


@dataclass(frozen=True)
class Photos:
    """The photos of a run, by name. Their content, not their place, decides what is reused."""

    files: Mapping[str, Path]
    """Photo by name; a name is the path below the photo folder."""

    digests: Mapping[str, str]
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Files that look like photos but cannot be read, with the reason."""

    unread: Mapping[str, int] = field(default_factory=dict)
    """Number of pictures beside them of kinds that are not read (HEIC, raw), by ending."""

    masks: Path | None = None
    """Folder of masks, NAME.png: non-zero pixels are kept."""

    before_black: bool = False
    """Whether they stand before a black backdrop, which is left out where a photo has no mask."""

    ordered: bool = False
    """True for frames of a video: neighbours in the order of names overlap."""

    workspace: Path = field(default=Path("work"))
    """Where steps that need files of their own (features, matches) put them."""

    given: Mapping[str, Any] = field(default_factory=dict)
    """What the user asked for, by the names of the command line, for run.json."""

    @property
    def key(self) -> str:
        """Digest of all names and contents."""
        masks = [_file_digest(path) for path in _files_below(self.masks)] if self.masks else []
        return f"photos-{digest(sorted(self.digests.items()), masks, self.ordered)}"


@dataclass(frozen=True)
class Photo:
    """One photo as taken; its pixels stay on disk until they are read."""

    name: str
    path: Path

    def read(self, max_size: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the upright photo, shrunk so that its longer side is at most `max_size` pixels."""
        return images.read_photo(self.path, max_size)


def find_photos(
    source: Path,
    workspace: Path,
    *,
    masks: Path | None = None,
    keep_backdrop: bool = False,
    max_frames: int = 200,
    progress: Callable[[int, int], None] | None = None,
) -> Photos:
    """Returns the photos of a folder, or the sharp and distinct frames of a video.

    Args:
        source: Folder of photos, or a video file.
        workspace: Folder for working files; a video's frames go into its `frames`.
        masks: Folder of masks.
        keep_backdrop: Whether a black backdrop is to be reconstructed as what it looks like.
        max_frames: Most frames to take from a video.
        progress: Called with (done, total) while a video is read.

    Raises:
        InputError: Neither a folder of photos nor a video.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; wanted a folder of photos or a video")
    if masks is not None and not masks.is_dir():
        raise InputError(f"{masks}: no such folder of masks")
    if max_frames < 1:
        raise InputError(f"max_frames: {max_frames}, at least 1 wanted")
    given = {"photos": source, "masks": masks, "keep_backdrop": keep_backdrop, "max_frames": max_frames}
    video = source.is_file()
    if video:
        source = _frames(source, workspace, max_frames, progress)
    source = source.absolute()  # workers may stand in another folder
    found = {_name(path.relative_to(source)): path for path in images.find_photos(source)}
    dropped = _unreadable(found)
    dropped |= _ambiguous(name for name in found if name not in dropped)
    files = {name: path for name, path in found.items() if name not in dropped}
    if not files:
        first, reason = next(iter(dropped.items()))
        raise InputError(
            f"{source}: none of its {len(found)} photos can be read; the first, {first}: {reason}"
        )
    if masks is not None and not any(images.find_mask(masks, name) for name in files):
        raise InputError(
            f"{masks}: no mask of any photo, wanted {Path(next(iter(files))).with_suffix('.png')} and so on"
        )
    digests = {name: _file_digest(path) for name, path in files.items()}
    return Photos(
        files,
        digests,
        dropped,
        {} if video else images.unread_pictures(source),
        masks=masks,
        before_black=not keep_backdrop and stand_before_black(files, masks),
        ordered=video,
        workspace=workspace,
        given=given,
    )


def _frames(video: Path, workspace: Path, most: int, progress: Callable[[int, int], None] | None) -> Path:
    """Returns the folder with the frames of a video, taken from it unless they are there."""
    if video.suffix.lower() in images.PHOTO_ENDINGS:
        raise InputError(f"{video}: one photo, wanted a folder of photos or a video; recon single takes one")
    frames = workspace / f"frames-{digest(_file_digest(video), most)}"
    if not frames.is_dir():
        extracting = frames.with_suffix(".part")
        images.extract_frames(video, extracting, max_frames=most, on_progress=progress)
        extracting.rename(frames)
    return frames


def stand_before_black(files: Mapping[str, Path], masks: Path | None) -> bool:
    """Returns whether most photos without mask have a black backdrop; of many some are looked at."""
    bare = [path for name, path in files.items() if not (masks and images.find_mask(masks, name))]
    some = bare[:: max(1, -(-len(bare) // BACKDROP_PHOTOS))]
    with ThreadPoolExecutor() as pool:
        return 2 * sum(pool.map(_has_backdrop, some)) > len(some)


def _has_backdrop(path: Path) -> bool:
    try:
        return bool(black_backdrop(images.read_photo(path, THUMBNAIL)).any())
    except ViewError:
        return False


def _name(path: Path) -> str:
    """The path as text that can be printed and kept, whatever bytes the file system holds."""
    return os.fsencode(path.as_posix()).decode("utf-8", errors="replace")


def same_ratio(width: int, height: int, camera: Camera | Lens) -> bool:
    """Returns whether a map of this size may show all that a camera does, its sides rounded."""
    allowed = max(MAX_ASPECT_ERROR, MAX_ROUNDING_PX / min(width, height))
    return abs((width / height) / (camera.width / camera.height) - 1) <= allowed


def _ambiguous(names: Iterable[str]) -> dict[str, str]:
    """Photos whose name without its ending another one has: depth and predictions are kept by that name."""
    first: dict[str, str] = {}
    reasons = {}
    for name in names:
        stem = Path(name).with_suffix("").as_posix()
        if stem in first:
            reasons[name] = f"{first[stem]} has the same name but for its ending; rename one of them"
        first.setdefault(stem, name)
    return reasons


def _unreadable(files: Mapping[str, Path]) -> dict[str, str]:
    """The photos that cannot be decoded, with the reason."""

    def reason(path: Path) -> str:
        try:
            images.verify_photo(path)
        except ViewError as error:
            return str(error).removeprefix(f"{path.name}: ")
        return ""

    with ThreadPoolExecutor() as pool:
        reasons = dict(zip(files, pool.map(reason, files.values()), strict=True))
    return {name: text for name, text in reasons.items() if text}


def _file_digest(path: Path) -> str:
    state = hashlib.blake2b(digest_size=12)
    try:
        with path.open("rb") as file:
            while block := file.read(READ_BYTES):
                state.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from None
    return state.hexdigest()


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def folder_digest(folder: Path) -> str:
    """Returns a digest of the names and contents of all files below a folder."""
    return digest(
        [(path.relative_to(folder).as_posix(), _file_digest(path)) for path in _files_below(folder)]
    )


def file_digest(path: Path) -> str:
    """Returns a digest of a file's content; of nothing where there is no such file."""
    return _file_digest(path) if path.is_file() else "absent"


@dataclass(frozen=True, eq=False)
class Given:
    """Makes an artifact that is there already."""

    value: Any

    def __call__(self) -> Any:
        """Returns it."""
        return self.value


@dataclass(frozen=True)
class LinkPhotos:
    """Points a scene's views to the photos where they lie now; a kept scene may come from another folder."""

    files: Mapping[str, Path]

    def __call__(self, *, scene: Scene) -> Scene:
        """Returns the scene with its views' paths renewed."""
        views = tuple(replace(view, image=self.files.get(view.name)) for view in scene.views)
        return replace(scene, views=views)


@dataclass(frozen=True)
class ReadImage:
    """Reads a photo and undistorts it."""

    photo: Photo

    def __call__(self, *, view: View) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the picture that the view's pinhole camera would take."""
        pixels = self.photo.read(max_size=max(view.camera.width, view.camera.height))
        if view.lens is None:
            return images.resize_image(pixels, view.camera.width, view.camera.height)
        height, width = pixels.shape[:2]
        return images.remap(pixels, colmap.photo_pixels(view, width, height))


@dataclass(frozen=True)
class ReadMask:
    """Reads the mask of a photo, or finds its black backdrop, and undistorts it."""

    folder: Path | None
    photo: Photo
    before_black: bool = False

    def __call__(self, *, view: View, points: SparseDepth | None = None) -> Bool[np.ndarray, "h w"]:
        """Returns True where the undistorted photo is kept; everywhere without mask and backdrop.

        Args:
            view: Of the photo.
            points: Its sparse points, by which dim cloth is told from a dark object.
        """
        full = np.ones((view.camera.height, view.camera.width), bool)
        shown = images.read_mask(self.folder, self.photo.name) if self.folder else None
        is_photo = shown is None and self.before_black
        if is_photo:
            shown = self.photo.read(max_size=BACKDROP_SIZE)
        if shown is None:
            return full
        height, width = shown.shape[:2]
        taken = view.lens or view.camera
        if not same_ratio(width, height, taken):
            raise ViewError(
                f"mask is {width}x{height}, photo {taken.width}x{taken.height}: their sides' ratios differ"
            )
        pixels = np.nan_to_num(colmap.photo_pixels(view, width, height), nan=-1.0)
        mask = ~black_backdrop(shown, points.values_of(pixels) if points else None) if is_photo else shown
        column, row = np.floor(pixels).astype(np.int64).reshape(-1, 2).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        kept = inside & mask[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
        return kept.reshape(full.shape)


def view_recipes(photos: Photos, scene: Scene, wanted: set[str]) -> dict[str, dict[str, Recipe]]:
    """Returns the recipes of what a scene gives, by artifact and view, keyed by content.

    Args:
        photos: The run's photos.
        scene: Posed views.
        wanted: Which of `VIEW_SOURCES` the run reads.
    """
    recipes: dict[str, dict[str, Recipe]] = {name: {} for name in wanted}
    for view in scene.views:
        for artifact, recipe in _recipes_of(photos, scene, view, wanted).items():
            recipes[artifact][view.name] = recipe
    return recipes


def _recipes_of(photos: Photos, scene: Scene, view: View, wanted: set[str]) -> dict[str, Recipe]:
    content = photos.digests.get(view.name, "absent")
    shape = digest(view.camera, view.lens)
    this_view = Recipe(f"view-{digest(view.name, shape, view.cam_from_world)}", Given(view), kept=False)
    recipes = {"view": this_view}
    photo = Photo(view.name, photos.files.get(view.name, Path(view.name)))
    recipes["photo"] = Recipe(f"photo-{digest(view.name, content)}", Given(photo), kept=False)
    recipes["image"] = Recipe(
        f"image-{digest(content, shape)}", ReadImage(photo), {"view": this_view}, kept=False
    )
    if "mask" in wanted:
        mask = images.find_mask(photos.masks, view.name) if photos.masks else None
        read = ReadMask(photos.masks, photo, photos.before_black)
        inputs, shown = {"view": this_view}, file_digest(mask) if mask else "none"
        if not mask and photos.before_black:
            shown = f"backdrop of {content}"
            if scene.cloud is not None:
                inputs["points"] = _points_recipe(scene, view)
                shown += f" around {inputs['points'].key}"
        recipes["mask"] = Recipe(f"mask-{digest(shape, shown)}", read, inputs, kept=False)
    if "points" in wanted:
        recipes["points"] = _points_recipe(scene, view)
    return {name: recipe for name, recipe in recipes.items() if name in wanted}


def _points_recipe(scene: Scene, view: View) -> Recipe:
    try:
        anchors = scene.anchors(view)
    except ViewError as error:
        return Recipe(f"points-{digest(str(error))}", Refuse(str(error)), kept=False)
    return Recipe(f"points-{digest(anchors)}", Given(anchors), kept=False)


@dataclass(frozen=True)
class Refuse:
    """Stands for an artifact that a view does not have."""

    reason: str

    def __call__(self) -> Any:
        """Raises the reason as a ViewError."""
        raise ViewError(self.reason)
