"""Many scenes at once: packed into flat tables (by worker processes), drawn on the processor or a GPU."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, NamedTuple, no_type_check

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64

from lotus.scenes.description import MAX_LIGHTS, SceneDescription
from lotus.scenes.shading import SEED_BITS, rays_of, traced
from lotus.scenes.tracing import World, build_world
from recon.errors import InputError
from recon.jit import compiled


class SceneTables(NamedTuple):
    """The worlds of b scenes one after the other, and what else each scene has."""

    boxes: Float64[np.ndarray, "nodes 6"]
    """This and the next six as in `World`; what they count starts anew in each scene."""
    leaves: Int64[np.ndarray, "nodes"]
    skips: Int64[np.ndarray, "nodes"]
    shapes: Int64[np.ndarray, "n"]
    frames: Float64[np.ndarray, "n 15"]
    forms: Float64[np.ndarray, "n f"]
    materials: Float64[np.ndarray, "n m"]
    node_starts: Int64[np.ndarray, "b+1"]
    """Rows of the tree of scene s: from node_starts[s] up to node_starts[s + 1]."""
    solid_starts: Int64[np.ndarray, "b+1"]
    lights: Float64[np.ndarray, "b l 8"]
    air: Float64[np.ndarray, "b 14"]
    rotations: Float64[np.ndarray, "b 3 3"]
    """Of cam_from_world."""
    positions: Float64[np.ndarray, "b 3"]
    """Of the cameras."""
    seeds: Int64[np.ndarray, "b"]
    fovs: Float64[np.ndarray, "b"]
    """Along the longer side of the picture, rad."""


def pack_scenes(scenes: Sequence[SceneDescription]) -> SceneTables:
    """Returns scenes as tables, with their trees built."""
    rays = [rays_of(scene) for scene in scenes]
    worlds = [build_world(scene.solids, scene.count, ray[1]) for scene, ray in zip(scenes, rays, strict=True)]
    lights = np.zeros((len(scenes), MAX_LIGHTS, 8))
    for k, scene in enumerate(scenes):
        lights[k, : len(scene.lights)] = scene.lights
    return SceneTables._make(
        (
            *(np.concatenate(parts) for parts in zip(*worlds, strict=True)),
            np.cumsum([0, *(len(world.boxes) for world in worlds)]),
            np.cumsum([0, *(len(world.shapes) for world in worlds)]),
            lights,
            np.stack([scene.air for scene in scenes]),
            np.stack([ray[0] for ray in rays]),
            np.stack([ray[1] for ray in rays]),
            np.array([scene.seed & SEED_BITS for scene in scenes]),
            np.array([scene.fov for scene in scenes]),
        )
    )


def radiance_batch(
    tables: SceneTables, width: int, height: int, device: torch.device
) -> tuple[
    Float32[torch.Tensor, "b h w 3"], Float32[torch.Tensor, "b h w"], Float32[torch.Tensor, "b h w 3"]
]:
    """Returns light (linear RGB), depth and normals of scenes, as `radiance` does, on the device.

    On a GPU the work is queued on torch's current stream, and the call does not wait for it. A GPU fuses
    multiplication and addition, so its last digits differ, and with them a pixel here and there.

    Raises:
        InputError: The device is a GPU, and numba cannot use it.
    """
    arrays = (*tables[:-1], _intrinsics_of(tables.fovs, width, height))
    if device.type == "cuda":
        if find_spec("numba_cuda") is None:
            raise InputError("scenes on a GPU need numba-cuda: pip install 'lotus-recon[cuda]'")
        from lotus.scenes.gpu import radiance_on_gpu

        return radiance_on_gpu(arrays, (height, width), device)
    pictures = [traced(scene_of(arrays, s), (height, width)) for s in range(len(tables.fovs))]
    light, depth, normals = (torch.from_numpy(np.stack(maps)) for maps in zip(*pictures, strict=True))
    return light.to(device), depth.to(device), normals.to(device)


def _intrinsics_of(fovs: Float64[np.ndarray, "b"], width: int, height: int) -> Float64[np.ndarray, "b 3 3"]:
    """Returns K of each scene, as `intrinsics`."""
    K = np.zeros((len(fovs), 3, 3))
    for k, fov in enumerate(fovs):
        focal = 0.5 * max(width, height) / math.tan(0.5 * fov)
        K[k] = ((focal, 0, 0.5 * width), (0, focal, 0.5 * height), (0, 0, 1))
    return K


@compiled
@no_type_check
def scene_of(arrays: Any, s: int) -> Any:
    """Returns scene s as `pixels` wants it, out of the tables less `fovs` and with K."""
    boxes, leaves, skips, shapes, frames, forms, materials = arrays[:7]
    node_starts, solid_starts, lights, air, rotations, positions, seeds, K = arrays[7:]
    node, last_node = node_starts[s], node_starts[s + 1]
    solid, last_solid = solid_starts[s], solid_starts[s + 1]
    world = World(
        boxes[node:last_node],
        leaves[node:last_node],
        skips[node:last_node],
        shapes[solid:last_solid],
        frames[solid:last_solid],
        forms[solid:last_solid],
        materials[solid:last_solid],
    )
    return world, lights[s], air[s], (K[s], rotations[s], positions[s], seeds[s])
