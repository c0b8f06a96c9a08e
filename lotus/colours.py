"""How a model sees the colours of photos, so that it meets a look that it was not trained on as one it knows.

A word says it: which channel stands in the place of red, green and blue, or `grey`, their brightness, in all
three; with "-" before it, the negative. It is part of a checkpoint and applied before any network.
"""

from itertools import permutations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float32

AS_THEY_ARE, GREY = "rgb", "grey"
ORDERS = (*("".join(order) for order in permutations(AS_THEY_ARE)), GREY)
COLOURS = (*ORDERS, *(f"-{order}" for order in ORDERS))
BRIGHTNESS = (0.299, 0.587, 0.114)  # ITU-R BT.601


def colour_matrix(colours: str) -> "Float32[torch.Tensor, '3 3']":
    """Returns what the colours of photos in [-1, 1] are multiplied by."""
    import torch

    order = colours.removeprefix("-")
    if order == GREY:
        matrix = torch.tensor(BRIGHTNESS).repeat(3, 1)
    else:
        matrix = torch.eye(3)[[AS_THEY_ARE.index(channel) for channel in order]]
    return -matrix if colours.startswith("-") else matrix


def showing_matrix(colours: str) -> "Float32[torch.Tensor, '3 3']":
    """Returns what pictures are multiplied by so that they are seen as they were, grey ones if all are."""
    return colour_matrix(colours.replace(GREY, AS_THEY_ARE)).T


def seen_as(pixels: "Float32[torch.Tensor, 'b 3 h w']", colours: str) -> "Float32[torch.Tensor, 'b 3 h w']":
    """Returns photos in [-1, 1] as a model sees them."""
    import torch

    if colours == AS_THEY_ARE:
        return pixels
    return torch.einsum("dc,bchw->bdhw", colour_matrix(colours).to(pixels), pixels).contiguous()
