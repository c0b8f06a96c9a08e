"""The benchmarks of the Lotus paper, as their publishers laid them out and as the authors' code reads them.

Depth: the archives of Marigold's evaluation (Ke et al. 2024); normals: those of DSINE (Bae and Davison 2024).
A benchmark is a table entry: how a photo's name leads to its truth, what counts, what is cropped.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from lotus.exr import read_exr
from lotus.files import Files, find_files, read_array, read_boxed_normals, read_grey, read_picture
from recon.errors import InputError

OURS_FROM_LUB = np.array([-1, -1, -1], np.float32)  # left, up, toward the camera: all opposite to ours
OURS_FROM_RDB = np.array([1, 1, -1], np.float32)  # right, down, toward the camera: what OASIS stores
KITTI_CROP = (352, 1216)  # (height, width) of the KITTI depth benchmark: bottom rows, centred columns
Window = Callable[[int, int], tuple[slice, slice]]
"""(height, width) to the rows and columns that count."""


@dataclass(frozen=True, eq=False)
class DepthSample:
    """A photo and its true depth."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    depth: Float32[np.ndarray, "h w"]
    """Metres."""

    mask: Bool[np.ndarray, "h w"]
    """Where depth is known and counts."""


@dataclass(frozen=True, eq=False)
class NormalSample:
    """A photo and its true normals."""

    name: str
    image: UInt8[np.ndarray, "h w 3"]
    normals: Float32[np.ndarray, "h w 3"]
    """OpenCV camera frame, as everywhere in this project."""

    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class DepthBenchmark:
    """A data set with true depth."""

    title: str
    count: int
    """Photos that the published figures are means of."""

    photo: str
    """Pattern of the photos' names."""

    truth: tuple[str, ...]
    """Files beside a photo, in terms of the pattern's groups: depth, and a mask where there is one."""

    homes: tuple[str, ...]
    """Where below a download folder it is."""

    read_depth: Callable[[Files, str, tuple[int, int]], Float32[np.ndarray, "h w"]]
    """(files, name, (height, width) of the photo) to depth, m."""

    min_depth: float
    max_depth: float
    """Depth that counts lies between, m; predictions are clipped to them."""

    processing_res: int = 0
    """Longer side of the picture that the network sees, px; 0: the photo's."""

    alignment_max_res: int = 0
    """Longest side of the maps that scale and shift are fitted on, px; 0: the photo's."""

    crop: tuple[int, int] | None = None
    window: Window = lambda height, width: (slice(height), slice(width))

    def read(self, files: Files, names: tuple[str, ...]) -> DepthSample:
        """Returns a photo with its truth.

        Raises:
            InputError: A file is damaged or of another size than the photo.
        """
        image = read_picture(files, names[0])
        depth = self.read_depth(files, names[1], image.shape[:2])
        _check_size(files, names[1], depth, image)
        if len(names) > 2:
            mask = read_array(files, names[2]).astype(bool)
            _check_size(files, names[2], mask, image)
        else:
            mask = (depth > self.min_depth) & (depth < self.max_depth)
        if self.crop:
            rows, columns = _benchmark_window(files, names[0], image.shape[:2], self.crop)
            image, depth, mask = image[rows, columns], depth[rows, columns], mask[rows, columns]
        inside = np.zeros_like(mask)
        inside[self.window(*mask.shape)] = True
        return DepthSample(names[0], image, depth, mask & inside)


@dataclass(frozen=True)
class NormalBenchmark:
    """A data set with true normals."""

    title: str
    count: int
    """Photos whose pixels the published figures are pooled over."""

    photo: str
    truth: tuple[str, ...]
    homes: tuple[str, ...]
    read_normals: Callable[
        [Files, str, tuple[int, int]], tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]
    ]
    """(files, name, (height, width) of the photo) to normals in our frame, and where they count."""

    def read(self, files: Files, names: tuple[str, ...]) -> NormalSample:
        """Returns a photo with its truth.

        Raises:
            InputError: A file is damaged or of another size than the photo.
        """
        image = read_picture(files, names[0])
        normals, mask = self.read_normals(files, names[1], image.shape[:2])
        _check_size(files, names[1], normals, image)
        return NormalSample(names[0], image, normals, mask)


Benchmark = DepthBenchmark | NormalBenchmark


def open_benchmark(
    benchmark: Benchmark, place: Path, *, listing: Path | None = None, limit: int | None = None
) -> tuple[Files, list[tuple[str, ...]]]:
    """Returns the files of a benchmark, and of every photo the names that `Benchmark.read` takes.

    Args:
        benchmark: One of `BENCHMARKS`.
        place: Its folder or tar archive, or a folder above it.
        listing: The authors' list of file names, one photo a line; None takes all photos that have a truth.
        limit: Takes so many, evenly spread; None wants all that are published.

    Raises:
        InputError: A listed file is missing, or without a list there are fewer or more than are wanted.
    """
    pattern = re.compile(benchmark.photo)
    files = find_files(place, benchmark.homes, pattern)
    photos = _listed(listing) if listing else sorted(name for name in files.names if pattern.fullmatch(name))
    if not photos:
        raise InputError(f"{files.root}: no photo of {benchmark.title} in it (wanted {benchmark.photo})")
    samples = []
    for photo in photos:
        match = pattern.fullmatch(photo)
        if not match:
            raise InputError(f"{listing}: {photo} is no photo of {benchmark.title} ({benchmark.photo})")
        samples.append((photo, *(match.expand(name) for name in benchmark.truth)))
    missing = [name for sample in samples for name in sample if name not in files.names]
    whole = [sample for sample in samples if files.names.issuperset(sample)]
    wanted = limit or benchmark.count
    if missing and (listing or len(whole) < wanted):
        raise InputError(
            f"{files.root}: {benchmark.title} lacks {len(missing)} files, the first is {missing[0]}"
        )
    if len(whole) < wanted and not (listing and not limit):
        raise InputError(f"{files.root}: {len(whole)} photos of {benchmark.title}, wanted {wanted}")
    if len(whole) > benchmark.count and not listing:
        raise InputError(
            f"{files.root}: {len(whole)} photos, {benchmark.title} is {benchmark.count} of them; "
            "say which with --filenames"
        )
    kept = np.linspace(0, len(whole) - 1, limit or len(whole)).round().astype(int)
    return files, [whole[index] for index in kept]


def _listed(listing: Path) -> list[str]:
    """Returns the photos of a list; lines whose truth is None have none (KITTI)."""
    try:
        lines = [line.split() for line in listing.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{listing}: no list of file names ({type(error).__name__})") from error
    return [words[0] for words in lines if words[1:2] != ["None"]]


def _check_size(files: Files, name: str, truth: np.ndarray, image: UInt8[np.ndarray, "h w 3"]) -> None:
    if truth.shape[:2] != image.shape[:2]:
        found, wanted = (" x ".join(map(str, array.shape[1::-1])) for array in (truth, image))
        raise InputError(f"{files.root}: {name} is {found}, its photo {wanted}")


def _benchmark_window(
    files: Files, name: str, size: tuple[int, int], crop: tuple[int, int]
) -> tuple[slice, slice]:
    (height, width), (rows, columns) = size, crop
    if height < rows or width < columns:
        raise InputError(f"{files.root}: {name} is {width} x {height}, wanted at least {columns} x {rows}")
    left = (width - columns) // 2
    return slice(height - rows, height), slice(left, left + columns)


def _nyu_window(height: int, width: int) -> tuple[slice, slice]:
    """The part of NYUv2's frames where the Kinect measures (Eigen et al. 2014)."""
    return slice(45, min(471, height)), slice(41, min(601, width))


def _eigen_window(height: int, width: int) -> tuple[slice, slice]:
    """The part of KITTI's frames that counts (Eigen et al. 2014)."""
    rows = slice(int(0.3324324 * height), int(0.91351351 * height))
    return rows, slice(int(0.0359477 * width), int(0.96405229 * width))


def _png_depth(per_metre: int) -> Callable[[Files, str, tuple[int, int]], Float32[np.ndarray, "h w"]]:
    return lambda files, name, _: (read_grey(files, name) / np.float64(per_metre)).astype(np.float32)


def _npy_depth(files: Files, name: str, _: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    return read_array(files, name).astype(np.float32)


def _raw_depth(files: Files, name: str, size: tuple[int, int]) -> Float32[np.ndarray, "h w"]:
    """ETH3D: float32 numbers without a header, infinite where there is no measurement."""
    content = files.read(name)
    if len(content) != 4 * size[0] * size[1]:
        raise InputError(
            f"{files.root}: {name} has {len(content)} bytes, "
            f"its photo of {size[1]} x {size[0]} wants {4 * size[0] * size[1]}"
        )
    depth = np.frombuffer(content, "<f4").reshape(size).astype(np.float32)
    return np.where(np.isposinf(depth), np.float32(0), depth)


def _png_normals(
    files: Files, name: str, _: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    colours = read_picture(files, name)
    normals = colours.astype(np.float32) / 255 * 2 - 1
    return normals * OURS_FROM_LUB, colours.max(axis=-1) > 0


def _exr_normals(
    files: Files, name: str, _: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    normals = read_exr(name, files.read(name))
    mask: np.ndarray = np.linalg.norm(normals, axis=-1) > 0.5
    return normals * OURS_FROM_LUB, mask


def _oasis_normals(
    files: Files, name: str, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]:
    normals, mask = read_boxed_normals(files, name, size)
    return normals * OURS_FROM_RDB, mask


def _dsine(
    title: str, count: int, photo: str, ending: str, homes: Sequence[str]
) -> tuple[str, int, str, tuple[str, ...], tuple[str, ...]]:
    """Returns the first fields of a benchmark in DSINE's layout: X_img.png beside X_normal.ENDING."""
    places = tuple(f"{above}{home}" for above in ("dsine_eval/", "") for home in homes)
    return title, count, rf"({photo})_img\.(?:png|jpg)", (rf"\1_normal.{ending}",), places


BENCHMARKS: dict[str, Benchmark] = {
    "nyuv2": DepthBenchmark(
        "NYUv2 test",
        654,
        r"(test/[^/]+)/rgb_(\d+)\.png",
        (r"\1/depth_\2.png",),
        ("nyuv2/nyu_labeled_extracted.tar", "nyu_labeled_extracted.tar", "nyu_labeled_extracted", "nyuv2"),
        _png_depth(1000),
        1e-3,
        10.0,
        window=_nyu_window,
    ),
    "kitti": DepthBenchmark(
        "KITTI Eigen test",
        652,
        r"\d{4}_\d\d_\d\d/([^/]+_sync)/image_02/data/(\d+)\.png",
        (r"\1/proj_depth/groundtruth/image_02/\2.png",),
        ("kitti/kitti_eigen_split_test.tar", "kitti_eigen_split_test.tar", "kitti_eigen_split_test", "kitti"),
        _png_depth(256),
        1e-5,
        80.0,
        crop=KITTI_CROP,
        window=_eigen_window,
    ),
    "eth3d": DepthBenchmark(
        "ETH3D",
        454,
        r"rgb/([^/]+)/images/dslr_images/(.+\.JPG)",
        (r"depth/\1_dslr_depth/\1/ground_truth_depth/dslr_images/\2",),
        ("eth3d/eth3d.tar", "eth3d.tar", "eth3d"),
        _raw_depth,
        1e-5,
        np.inf,
        processing_res=768,
        alignment_max_res=1024,
    ),
    "scannet": DepthBenchmark(
        "ScanNet val sample",
        800,
        r"(scene[^/]+)/color/(\d+)\.jpg",
        (r"\1/depth/\2.png",),
        ("scannet/scannet_val_sampled_800_1.tar", "scannet_val_sampled_800_1.tar", "scannet"),
        _png_depth(1000),
        1e-3,
        10.0,
    ),
    "diode": DepthBenchmark(
        "DIODE val",
        771,
        r"((?:indoors|outdoor)/.+)\.png",
        (r"\1_depth.npy", r"\1_depth_mask.npy"),
        ("diode/diode_val.tar", "diode_val.tar", "diode"),
        _npy_depth,
        0.6,
        350.0,
        processing_res=640,
    ),
    "nyuv2-normals": NormalBenchmark(
        *_dsine("NYUv2 normals", 654, r"test/\d+", "png", ["nyuv2"]), _png_normals
    ),
    "scannet-normals": NormalBenchmark(
        *_dsine("ScanNet normals", 300, r"scene[^/]+/\d+", "png", ["scannet"]), _png_normals
    ),
    "ibims-normals": NormalBenchmark(
        *_dsine("iBims-1 normals", 100, r"ibims/.+", "exr", ["ibims"]), _exr_normals
    ),
    "sintel-normals": NormalBenchmark(
        *_dsine("Sintel normals", 1064, r"[^/]+/frame_\d+", "exr", ["sintel"]), _exr_normals
    ),
    "oasis-normals": NormalBenchmark(
        *_dsine("OASIS normals", 10000, r"val/.+", "npz", ["oasis"]), _oasis_normals
    ),
}
