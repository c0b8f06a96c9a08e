"""Annotations drawn by networks in training, whatever their output means and in any number of steps.

Inference proper (`lotus.model`) takes x0 networks only, as the published ones are; the paper's ablations also
train the noise and the velocity, and over all timesteps.
"""

import torch
from jaxtyping import Float32, Int64

from lotus.network import sampling_timesteps, task_vectors
from lotus.training.networks import Networks
from lotus.training.step import clean_from, forward, signal_shares


@torch.no_grad()
def sample_latents(
    networks: Networks,
    condition: Float32[torch.Tensor, "b c h w"],
    noise: Float32[torch.Tensor, "b z h w"] | None,
    switch: Int64[torch.Tensor, "b"],
    *,
    prediction: str,
    steps: int = 1,
) -> Float32[torch.Tensor, "b z h w"]:
    """Returns the clean latents of annotations.

    DDIM (Song et al. 2021, equation 12, no added noise) from timestep 999 down, trailing spacing, as
    `LotusModel.denoise` does: z' = sqrt(a') z0 + sqrt(1 - a') e with e = (z - sqrt(a) z0) / sqrt(1 - a).

    Args:
        networks: In training.
        condition: What the UNet sees of the photos.
        noise: Where G starts; D takes none and one step.
        switch: Task of each row.
        prediction: What the UNet's output means: "x0", "v" or "eps".
        steps: Timesteps that are visited.
    """
    rows = torch.ones_like(switch)
    vectors = task_vectors(len(networks.tasks) + 1).to(switch.device)[switch]
    if noise is None:
        return forward(networks, condition, vectors, rows * sampling_timesteps(1)[0]).float()
    timesteps, noisy = sampling_timesteps(steps), noise
    shares = [signal_shares().to(noise.device)[rows * each][:, None, None, None] for each in timesteps]  # a
    for step, share in enumerate(shares):
        output = forward(networks, torch.cat([condition, noisy], dim=1), vectors, rows * timesteps[step])
        clean = clean_from(output.float(), noisy, share, prediction)
        if step + 1 < steps:
            error = (noisy - share.sqrt() * clean) / (1 - share).sqrt()
            noisy = shares[step + 1].sqrt() * clean + (1 - shares[step + 1]).sqrt() * error
    return clean
