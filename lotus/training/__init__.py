"""Training of Lotus (He et al. 2024, section 4): `lotus train`.

In the order of the method: `config` (what is trained, on what), `networks` (built or loaded, written back in
the published layout), `targets` (depth and normals drawn as pictures), `shards` and `encoding` (samples, and
their latents), `looks` (colours seen, and scenes made, after few photos), `step` (one step of the UNet),
`autoencoder` (one step of a small VAE), `loop` (optimiser, moving average, checkpoints, exact resume),
`validation`, and the `command`.
"""
