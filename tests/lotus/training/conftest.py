"""Tiny networks and samples to train."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lotus.data import TrainingSample
from lotus.training.config import Data, Loss, Networks, Optimizer, Train
from lotus.training.networks import build_vae, write_part

SIZE = (32, 24)


def picture_of_a_plane(index: int, size: tuple[int, int]) -> TrainingSample:
    """Returns a slanted plane z = 1 / (c + s v), lit by its slope: brighter is nearer."""
    width, height = size
    rng = np.random.default_rng(index)
    slope, side = rng.uniform(0.2, 0.8), rng.uniform(-0.3, 0.3)
    v, u = np.meshgrid(np.linspace(0, 1, height), np.linspace(-1, 1, width), indexing="ij")
    disparity = 0.3 + slope * v + side * u
    image = np.clip(disparity[..., None] * [220, 200, 180], 0, 255).astype(np.uint8)
    normal = -np.array([side, slope, 1.0]) / np.linalg.norm([side, slope, 1.0])
    normals = np.broadcast_to(normal, (height, width, 3)).astype(np.float32)
    depth, sky = (1 / disparity).astype(np.float32), np.zeros(disparity.shape, bool)
    return TrainingSample(f"plane {index}", image, depth, normals, sky)


@pytest.fixture(scope="session")
def small_vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with vae/: an untrained autoencoder of 8 latent channels."""
    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    sizes = Networks(vae_channels=(8, 8, 8, 16), latent_channels=4, vae_groups=4)
    write_part(build_vae(sizes), folder / "vae/diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def small(small_vae: Path, tmp_path: Path) -> Train:
    """A joint model of disparity and normals, from scratch, on tiny pictures."""
    return small_training(small_vae, tmp_path / "out")


def small_training(small_vae: Path, out: Path) -> Train:
    """Returns the options of a joint model from scratch on tiny pictures."""
    networks = Networks(
        init="",
        vae=str(small_vae),
        unet_channels=(16, 16, 16),
        unet_heads=(2, 2, 2),
        unet_groups=4,
        prompt_channels=8,
    )
    return Train(
        out=out,
        tasks=("disparity", "normal"),
        steps=6,
        batch_size=4,
        save_every=3,
        validate_every=6,
        device="cpu",
        networks=networks,
        data=Data(sizes=(SIZE,), validation=2),
        loss=Loss(reconstruction_rows=0.5),
        optimizer=Optimizer(learning_rate=1e-3, warmup=2, cosine=True, ema=0.9),
    )
