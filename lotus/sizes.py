"""Sizes of what the networks see; kept apart from these, which take seconds to load."""

LATENT_FACTOR = 8  # pixels per latent cell


def map_size(width: int, height: int, processing_res: int) -> tuple[int, int]:
    """Returns (width, height) of the maps of a photo: about `processing_res` long, in multiples of 8 px.

    Each side is the nearest multiple, so a map is at most 4 px wider or narrower than the exact ratio.
    """
    longest = processing_res or max(width, height)
    factor = longest / max(width, height)
    width, height = (max(1, round(side * factor / LATENT_FACTOR)) * LATENT_FACTOR for side in (width, height))
    return width, height
