"""What a texture is worth beside vertex colours: a mesh drawn into photos that it was not textured from.

    python -m tests.benchmarks.texturing OUT=PHOTOS [OUT2=PHOTOS2 ...]

OUT is that of a `recon multi`. One photo in four is kept from the texture; vertex colours have seen them all.
Each of these photos is given the exposure of the mesh's picture, channel by channel, and compared where the
mesh is, unlit: PSNR, and the share of the photo's fine contrast (differences from a blur of 2 px) that is
there, as the slope of a fit. One line of JSON per mesh.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from pipelines.sources import Photo, ReadImage
from recon import raycasting, texturing
from recon.io import colmap
from recon.io.images import find_photos, resize_image
from recon.io.meshes import read_mesh
from recon.raycasting import RayCaster
from recon.scene import Mesh, View

KEPT_BACK = 4  # one photo in so many
DRAWN_SIZE = 1024  # px
BLUR_PX = 2.0


class Photos(dict[str, np.ndarray]):
    """Photos of views, read when asked for."""

    def __init__(self, views: tuple[View, ...]) -> None:
        super().__init__()
        self.views = {view.name: view for view in views}

    def __missing__(self, name: str) -> np.ndarray:
        view = self.views[name]
        assert view.image is not None
        return ReadImage(Photo(name, view.image))(view=view)


def fine(picture: np.ndarray) -> np.ndarray:
    return picture - cv2.GaussianBlur(picture, (0, 0), BLUR_PX)


def compared(mesh: Mesh, views: list[View], photos: Photos) -> dict[str, float]:
    caster, squares, slopes = RayCaster(mesh), [], []
    for view in views:
        camera = view.camera.fitted(DRAWN_SIZE)
        photo = resize_image(photos[view.name], camera.width, camera.height).astype(np.float64)
        drawn = caster.draw(camera, view.cam_from_world).astype(np.float64)
        seen = caster.cast(camera, view.cam_from_world).front
        inner = cv2.erode(seen.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
        photo *= np.median(drawn[seen], axis=0) / np.maximum(np.median(photo[seen], axis=0), 1)
        squares.append(((drawn - photo) ** 2).mean(axis=-1)[seen])
        wanted, found = fine(photo)[inner], fine(drawn)[inner]
        slopes.append(float((wanted * found).sum() / (wanted**2).sum()))
    return {
        "psnr": round(float(10 * np.log10(255**2 / np.concatenate(squares).mean())), 2),
        "contrast": round(float(np.mean(slopes)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", help="OUT=PHOTOS")
    raycasting.AMBIENT = 1.0  # unlit
    for word in parser.parse_args().runs:
        out, _, folder = word.partition("=")
        paths = {path.relative_to(folder).as_posix(): path for path in find_photos(Path(folder))}
        scene = colmap.scene_from_model(colmap.read_model(Path(out) / "sparse"), paths, max_size=1600)
        views = list(scene.views)
        held_out = views[KEPT_BACK // 2 :: KEPT_BACK]
        mesh, photos = read_mesh(Path(out) / "mesh.ply"), Photos(scene.views)
        begun = time.perf_counter()
        textured = texturing.texture_mesh(mesh, [v for v in views if v not in held_out], photos)
        seconds = time.perf_counter() - begun
        assert textured.texture is not None
        row = {"run": Path(out).name, "photos": len(views), "held_out": len(held_out)}
        row |= {"faces": len(mesh.faces), "seconds": round(seconds, 1), "texture": textured.texture.shape[:2]}
        row |= {"vertices": compared(replace(mesh, uv=None, texture=None), held_out, photos)}
        print(json.dumps(row | {"textured": compared(textured, held_out, photos)}), flush=True)


if __name__ == "__main__":
    main()
