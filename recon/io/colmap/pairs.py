"""Which photos to compare: all, neighbours in a video, near by GPS, look-alikes, or seen from near poses.

Pairs are rows (i, j) with i < j, sorted, without repetition.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from recon.io.colmap.features import PhotoFeatures
from recon.io.colmap.options import SfmOptions
from recon.scene import View

MAX_EXHAUSTIVE = 80  # 3160 pairs: some minutes; beyond, the square grows too fast
LOOP_PERIOD = 5  # every fifth frame of a video looks for earlier visits of the same place
LOOP_NEIGHBORS = 4
VOCABULARY = 64  # clusters; 64 x 128 numbers describe a photo
SAMPLED_DESCRIPTORS = 60_000  # for the vocabulary
PHOTO_DESCRIPTORS = 2_000  # per photo for its signature
KMEANS_ROUNDS = 12
SIMILARITY_DECIMALS = 4  # so that the order does not hang on the last bits of a sum
MAX_VIEW_ANGLE_DEG = 90.0  # views that look apart by more share no surface
EARTH_RADIUS_M = 6_371_000.0


def choose_pairs(
    features: Sequence[PhotoFeatures], options: SfmOptions, ordered: bool
) -> Int64[np.ndarray, "p 2"]:
    """Returns the pairs of photos (indices into `features`) that the matcher of `options` compares."""
    matcher: str = options.matcher
    positions = _positions(features)
    if matcher == "auto":
        matcher = _automatic(len(features), positions, ordered)
    if matcher == "exhaustive":
        return all_pairs(len(features))
    similarity = similarities(features, options.seed)
    if matcher == "sequential":
        return _sorted([*_sequence(len(features), options.neighbors // 2), *_loops(similarity)])
    if matcher == "spatial":
        near = nearest(-_distances(positions), options.neighbors)  # NaN for photos without GPS
        return _sorted([*near, *nearest(similarity, LOOP_NEIGHBORS)])
    return _sorted([*nearest(similarity, options.neighbors), *_spanning(similarity)])


def all_pairs(count: int) -> Int64[np.ndarray, "p 2"]:
    """Returns every pair."""
    return np.stack(np.triu_indices(count, 1), axis=1).astype(np.int64)


def posed_pairs(views: Sequence[View], neighbors: int) -> Int64[np.ndarray, "p 2"]:
    """Returns pairs of the nearest views that look the same way; all pairs of a few views."""
    if len(views) <= neighbors:
        return all_pairs(len(views))
    axes = np.stack([view.cam_from_world[2, :3] for view in views])
    apart = axes @ axes.T < np.cos(np.radians(MAX_VIEW_ANGLE_DEG))
    distances = _distances(np.stack([view.center for view in views]))
    return _sorted(nearest(np.where(apart, -np.inf, -distances), neighbors))


def nearest(similarity: Float64[np.ndarray, "n n"], count: int) -> list[tuple[int, int]]:
    """Returns each row's `count` most similar others of finite similarity, ties by index."""
    pairs = []
    for index, row in enumerate(similarity):
        order = [j for j in np.argsort(-row, kind="stable").tolist() if j != index and np.isfinite(row[j])]
        pairs += [(index, other) for other in order[:count]]
    return pairs


def similarities(features: Sequence[PhotoFeatures], seed: int) -> Float64[np.ndarray, "n n"]:
    """Returns how alike photos look, in [-1, 1], from their own descriptors (no vocabulary is downloaded).

    Each photo is a VLAD vector (Jegou et al. 2010): per visual word the summed differences of its descriptors
    to the word, normalised by word and as a whole (Arandjelovic and Zisserman 2013).
    """
    rng = np.random.default_rng(seed)
    chosen = [_sample(item, PHOTO_DESCRIPTORS, rng) for item in features]
    share = max(1, SAMPLED_DESCRIPTORS // max(1, len(features)))
    if not sum(map(len, chosen)):
        return np.zeros((len(features), len(features)))
    words = _cluster(np.concatenate([rows[:share] for rows in chosen]), rng)
    signatures = np.stack([_signature(rows, words) for rows in chosen])
    return np.round(signatures @ signatures.T, SIMILARITY_DECIMALS)


def _sample(features: PhotoFeatures, count: int, rng: np.random.Generator) -> Float64[np.ndarray, "k 128"]:
    descriptors = features.descriptors()
    rows = rng.permutation(len(descriptors))[:count]
    return descriptors[rows].astype(np.float64) / 512  # COLMAP stores 512 times the unit vector


def _cluster(samples: Float64[np.ndarray, "n d"], rng: np.random.Generator) -> Float64[np.ndarray, "k d"]:
    """Lloyd's k-means."""
    words = samples[rng.permutation(len(samples))[:VOCABULARY]]
    for _ in range(KMEANS_ROUNDS):
        nearest_word = _assign(samples, words)
        counts = np.bincount(nearest_word, minlength=len(words))
        sums = np.zeros_like(words)
        np.add.at(sums, nearest_word, samples)
        words = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], words)
    return words


def _assign(samples: Float64[np.ndarray, "n d"], words: Float64[np.ndarray, "k d"]) -> Int64[np.ndarray, "n"]:
    return ((words**2).sum(axis=1) - 2 * samples @ words.T).argmin(axis=1)


def _signature(
    rows: Float64[np.ndarray, "n d"], words: Float64[np.ndarray, "k d"]
) -> Float64[np.ndarray, "m"]:
    sums = np.zeros_like(words)
    if len(rows):
        nearest_word = _assign(rows, words)
        np.add.at(sums, nearest_word, rows - words[nearest_word])
    sums /= np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return sums.reshape(-1) / max(float(np.linalg.norm(sums)), 1e-12)


def _automatic(count: int, positions: Float64[np.ndarray, "n 2"], ordered: bool) -> str:
    if count <= MAX_EXHAUSTIVE:
        return "exhaustive"
    if ordered:
        return "sequential"
    return "spatial" if np.isfinite(positions).all(axis=1).mean() > 0.8 else "retrieval"


def _sequence(count: int, overlap: int) -> list[tuple[int, int]]:
    """Each frame with the next `overlap` ones, then with those 2, 4, 8 ... times as far up to 32 times."""
    steps = sorted({*range(1, overlap + 1), *(overlap << power for power in range(1, 6))})
    return [(i, i + step) for i in range(count) for step in steps if i + step < count]


def _loops(similarity: Float64[np.ndarray, "n n"]) -> list[tuple[int, int]]:
    chosen = np.full_like(similarity, -np.inf)
    chosen[::LOOP_PERIOD] = similarity[::LOOP_PERIOD]
    return nearest(chosen, LOOP_NEIGHBORS)


def _spanning(similarity: Float64[np.ndarray, "n n"]) -> list[tuple[int, int]]:
    """The most similar pairs that connect all photos."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    tree = minimum_spanning_tree(2 - similarity).tocoo()
    return list(zip(tree.row.tolist(), tree.col.tolist(), strict=True))


def _positions(features: Sequence[PhotoFeatures]) -> Float64[np.ndarray, "n 2"]:
    """East and north of the mean position, metres; NaN for photos without GPS."""
    degrees = np.array([item.position or (np.nan, np.nan) for item in features], float).reshape(-1, 2)
    if not np.isfinite(degrees).any():
        return degrees
    offset = np.radians(degrees - np.nanmean(degrees, axis=0)) * EARTH_RADIUS_M
    return offset * [1, np.cos(np.radians(np.nanmean(degrees[:, 0])))]


def _distances(points: Float64[np.ndarray, "n d"]) -> Float64[np.ndarray, "n n"]:
    difference = points[:, None] - points[None]
    return np.linalg.norm(difference, axis=-1)


def _sorted(pairs: Iterable[tuple[int, int]]) -> Int64[np.ndarray, "p 2"]:
    unique = sorted({(min(pair), max(pair)) for pair in pairs})
    return np.array(unique, np.int64).reshape(-1, 2)
