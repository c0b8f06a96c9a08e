"""Sizes of what the networks see; kept apart from these, which take seconds to load."""

LATENT_FACTOR = 8  # pixels per latent cell
MOST_WIDENED = 4  # times longer than asked for, for the sake of the shorter side


def map_size(width: int, height: int, processing_res: int, least_side: int = 0) -> tuple[int, int]:
    """Returns (width, height) of the maps of a photo: about `processing_res` long, in multiples of 8 px.

    Each side is the nearest multiple, so a map is at most 4 px wider or narrower than the exact ratio.
    Longer, up to MOST_WIDENED times, where the shorter side would be under `least_side`.
    """
    factor = (processing_res or max(width, height)) / max(width, height)
    factor = max(factor, min(least_side / min(width, height), MOST_WIDENED * factor))
    width, height = (max(1, round(side * factor / LATENT_FACTOR)) * LATENT_FACTOR for side in (width, height))
    return width, height
