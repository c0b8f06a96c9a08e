"""Where charts lie in the texture, and what is drawn there."""

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from recon.errors import InputError
from recon.jit import compiled
from recon.scene import Camera
from recon.texturing.charts import Charts

PADDING = 3  # px around a chart
FILLED = 0.95  # share of the texture that boxes may fill at the first try
SHRINKING = 0.95  # of photos, until their pieces fit
LEAST_SCALE = 0.02  # of photos


@dataclass(frozen=True, eq=False)
class Layout:
    """Where in the texture charts lie: rows of boxes, and below them a square of 2 px for each other face."""

    width: int
    height: int
    scale: float
    """Of photos."""

    low: Int64[np.ndarray, "c 2"]
    """First pixel (u, v) of each chart's box in its shrunk photo."""

    size: Int64[np.ndarray, "c 2"]
    place: Int64[np.ndarray, "c 2"]
    """First pixel of it in the texture."""

    first_row: int
    """Of the squares."""

    @classmethod
    def of(cls, charts: Charts, max_size: int) -> "Layout":
        """Finds the largest photos, up to their own size, of which what is seen fits into a square.

        Raises:
            InputError: Nothing does.
        """
        known = charts.chart_of_vertex >= 0
        count = int(charts.chart_of_vertex.max(initial=-1)) + 1
        low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
        np.minimum.at(low, charts.chart_of_vertex[known], charts.uv[known])
        np.maximum.at(high, charts.chart_of_vertex[known], charts.uv[known])
        others = int((charts.labels < 0).sum())
        scale = 1.0
        while True:
            first = np.floor(low * scale).astype(np.int64) - PADDING
            size = np.ceil(high * scale).astype(np.int64) + PADDING - first
            area = size.prod(axis=1).sum() + 4 * others
            least = max(64, size[:, 0].max(initial=0), np.sqrt(area / FILLED))
            width = int(min(max_size, least + 1)) & ~1
            place, rows = _shelves(size, width)
            height = rows + 2 * -(-others // (width // 2))
            if height <= max_size and (not count or size[:, 0].max() <= width):
                return cls(width, max(height, 2), scale, first, size, place, rows)
            if scale < LEAST_SCALE:
                raise InputError(
                    f"{count} pieces of photos and {others} faces that none shows do not fit into a "
                    f"texture of {max_size} px"
                )
            scale *= SHRINKING

    def paste(
        self,
        atlas: UInt8[np.ndarray, "h w 3"],
        charts: Int64[np.ndarray, "k"],
        photo: UInt8[np.ndarray, "a b 3"],
        camera: Camera,
    ) -> None:
        """Writes one photo's charts into the texture."""
        small = camera.resized(
            max(1, round(camera.width * self.scale)), max(1, round(camera.height * self.scale))
        )
        picture = np.pad(resized(photo, small), ((PADDING + 1,) * 2, (PADDING + 1,) * 2, (0, 0)), mode="edge")
        for chart in charts:
            (u, v), (width, height), (left, top) = self.low[chart], self.size[chart], self.place[chart]
            u, v = max(u + PADDING + 1, 0), max(v + PADDING + 1, 0)
            piece = picture[v : v + height, u : u + width]
            atlas[top : top + piece.shape[0], left : left + piece.shape[1]] = piece

    def draw(
        self,
        atlas: UInt8[np.ndarray, "h w 3"],
        charts: Charts,
        colors: Float64[np.ndarray, "n 3"],
        offsets: Float64[np.ndarray, "n 3"],
    ) -> Float64[np.ndarray, "n 2"]:
        """Adds offsets to what was pasted, draws the faces without photo; returns texture coordinates."""
        at = np.empty((len(colors), 2))
        known = charts.chart_of_vertex >= 0
        chart = charts.chart_of_vertex[known]
        at[known] = charts.uv[known] * self.scale - self.low[chart] + self.place[chart]
        alone = charts.faces[charts.labels < 0]
        number = np.arange(len(alone))
        per_row = self.width // 2
        corner = np.stack([number % per_row * 2, self.first_row + number // per_row * 2], axis=1)
        for i, (right, down) in enumerate(((0, 0), (1, 0), (0, 1))):
            at[alone[:, i]] = corner + np.array([right + 0.5, down + 0.5])
        levelled = np.clip(colors + offsets, 0, 255)
        a, b, c = (levelled[alone[:, i]] for i in range(3))
        for (right, down), color in (((0, 0), a), ((1, 0), b), ((0, 1), c), ((1, 1), (b + c) / 2)):
            atlas[corner[:, 1] + down, corner[:, 0] + right] = np.rint(color)
        before = atlas.copy()
        _add_offsets(before, atlas, at, charts.faces[charts.at_border], offsets, float(PADDING))
        _add_offsets(before, atlas, at, charts.faces[charts.labels >= 0], offsets, 0.0)
        return at / [self.width, self.height] * [1, -1] + [0, 1]


def _shelves(size: Int64[np.ndarray, "c 2"], width: int) -> tuple[Int64[np.ndarray, "c 2"], int]:
    """Returns places of boxes in rows, highest first, and the height of all rows."""
    place = np.zeros_like(size)
    left = top = below = 0
    for chart in np.argsort(-size[:, 1], kind="stable"):
        wide, high = size[chart]
        if left + wide > width:
            left, top = 0, below
        place[chart] = left, top
        left, below = left + wide, max(below, top + high)
    return place, int(below)


def resized(photo: UInt8[np.ndarray, "h w 3"], camera: Camera) -> UInt8[np.ndarray, "a b 3"]:
    """Returns a photo resampled to a camera's size."""
    import cv2

    if photo.shape[:2] == (camera.height, camera.width):
        return photo
    smaller = camera.width < photo.shape[1]
    how = cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(photo, (camera.width, camera.height), interpolation=how))


@compiled
@no_type_check
def _add_offsets(before: Any, after: Any, at: Any, faces: Any, offsets: Any, reach: Any) -> None:
    """Adds offsets between the vertices to the pixels in faces, or to those around them, too."""
    height, width = before.shape[0], before.shape[1]
    for face in faces:
        x0, y0 = at[face[0], 0], at[face[0], 1]
        x1, y1 = at[face[1], 0], at[face[1], 1]
        x2, y2 = at[face[2], 0], at[face[2], 1]
        doubled = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if abs(doubled) < 1e-9:
            continue
        left, right = int(np.floor(min(x0, x1, x2) - reach)), int(np.ceil(max(x0, x1, x2) + reach))
        top, bottom = int(np.floor(min(y0, y1, y2) - reach)), int(np.ceil(max(y0, y1, y2) + reach))
        for v in range(max(top, 0), min(bottom, height - 1) + 1):
            for u in range(max(left, 0), min(right, width - 1) + 1):
                x, y = u + 0.5, v + 0.5
                b = ((x - x0) * (y2 - y0) - (x2 - x0) * (y - y0)) / doubled
                c = ((x1 - x0) * (y - y0) - (x - x0) * (y1 - y0)) / doubled
                a = 1.0 - b - c
                if reach == 0.0 and min(a, b, c) < 0.0:
                    continue
                a, b, c = max(a, 0.0), max(b, 0.0), max(c, 0.0)
                total = a + b + c
                for k in range(3):
                    offset = (
                        a * offsets[face[0], k] + b * offsets[face[1], k] + c * offsets[face[2], k]
                    ) / total
                    after[v, u, k] = np.uint8(min(max(before[v, u, k] + offset + 0.5, 0.0), 255.0))
