"""Lotus checkpoints: found, verified tensor by tensor, and loaded.

A checkpoint is a folder in the published layout (or the hub id of one): `unet/`, `vae/`, `text_encoder/`,
`tokenizer/`. Small models trained here have the empty prompt's embedding in place of the text encoder, and
may have an image encoder; the embedded one, `lotus-tiny`, comes with the package. Only safetensors are read;
a pickle can run code and is refused. Nothing is built by class name: the released checkpoints name four
pipeline classes, two of which exist nowhere.

In the order of use: `sources` finds one, `reading` makes its networks, `loading` puts them on a device.
"""

from lotus.checkpoints.loading import load
from lotus.checkpoints.reading import (
    Layout,
    embed_empty_prompt,
    embed_prompt,
    is_generative,
    layout,
    read_image_encoder,
    read_unet,
    read_unet_weights,
    read_vae,
)
from lotus.checkpoints.sources import (
    DEFAULT_RES,
    EMBEDDED,
    EMBEDDED_NAMES,
    IMAGE_ENCODER,
    PROMPT,
    UNET,
    VAE,
    check_task,
    colours_of,
    find_checkpoint,
    fingerprint,
    is_embedded,
    processing_res_of,
    task_of,
    tasks_of,
)

__all__ = [
    "DEFAULT_RES",
    "EMBEDDED",
    "EMBEDDED_NAMES",
    "IMAGE_ENCODER",
    "PROMPT",
    "UNET",
    "VAE",
    "Layout",
    "check_task",
    "colours_of",
    "embed_empty_prompt",
    "embed_prompt",
    "find_checkpoint",
    "fingerprint",
    "is_embedded",
    "is_generative",
    "layout",
    "load",
    "processing_res_of",
    "read_image_encoder",
    "read_unet",
    "read_unet_weights",
    "read_vae",
    "task_of",
    "tasks_of",
]
