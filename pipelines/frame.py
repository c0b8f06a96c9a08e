"""Which way is up in a scene, told by how its photos were taken."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from recon.scene import View


@dataclass(frozen=True, eq=False)
class Frame:
    """How the photos were taken, so that the mesh is shown upright and from where it was seen."""

    axes: Float64[np.ndarray, "3 3"]
    """Rows: right, down, forward, world frame."""

    from_all_sides: bool
    """The cameras look in all directions, not all the same way."""


def capture_frame(views: Sequence[View]) -> Frame:
    """Returns upright axes from the poses; those of the camera where there is no more than one.

    Down is the mean of the cameras' down directions, less what the cameras' right directions say is level:
    d minimises sum_i (x_i . d)^2 / n + w |y_mean - d|^2. So a camera path that always looks down a little
    still comes out upright.
    """
    if not views:
        return Frame(np.eye(3), from_all_sides=False)
    right, down, forward = np.moveaxis(np.stack([view.cam_from_world[:3, :3] for view in views]), 1, 0)
    level_weight = 0.1
    mean_down = down.mean(axis=0) if np.linalg.norm(down.mean(axis=0)) > 0.1 else down[0]
    upright = np.linalg.solve(right.T @ right / len(views) + level_weight * np.eye(3), mean_down)
    upright /= np.linalg.norm(upright)
    level = forward - (forward @ upright)[:, None] * upright
    from_all_sides = np.linalg.norm(level.mean(axis=0)) < 0.6 * np.linalg.norm(level, axis=1).mean()
    ahead = level[0] if from_all_sides else level.mean(axis=0)
    if np.linalg.norm(ahead) < 1e-6:
        ahead = np.cross(right[0], upright)
    ahead /= np.linalg.norm(ahead)
    return Frame(np.stack([np.cross(upright, ahead), upright, ahead]), bool(from_all_sides))
