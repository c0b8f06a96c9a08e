"""Agreement of a depth map with its neighbours': who confirms a pixel, and who sees through it.

A pixel of the reference, moved into a neighbour, lies at log depth L there where the neighbour says l. With
s^2 = s_i^2 + s_j^2 + s_0^2 the variance of their difference,

    |L - l| <= 2 s         the neighbour confirms the pixel (with s at most 3 %)
    L - l   >  3 s         the pixel is behind the neighbour's surface: hidden there, which says nothing
    L - l   < -3 s         the neighbour sees through the pixel: one of the two is wrong

(after the depth consistency checks of MP-SfM and of Schoenberger et al. 2016, section 4.3, here scaled by
the maps' own sigma). A pixel that more neighbours see through than confirm is dropped, or, where only one
objects, made uncertain. Nothing requires confirmation: what one view alone sees stays as it is.
"""

from recon.consistency.checking import Agreement, check
from recon.consistency.spread import depth_spread

__all__ = ["Agreement", "check", "depth_spread"]
