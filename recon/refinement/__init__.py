"""Depth whose slopes agree with the normals: normal integration with a prior, cut at depth jumps.

With l = log z, the aligned depth l0 and the log slope g_pq that the normals of two neighbours demand,

    E(l) = sum_p pi_p (l_p - l0_p)^2 + sum_k pi_k (l_k - log z_k)^2
           + sum_p w_p (phi(e_left, e_right) + phi(e_up, e_down))

with e = l_q - l_p - g_pq the four one-sided residuals of a pixel. phi is a robust loss of the soft minimum of
both squares: a surface goes on at least on one side of each pixel (the idea of bilateral normal integration,
Cao et al. 2022, whose weights are the derivatives of this soft minimum), and on neither where a thin thing
is one pixel wide.

1. `slopes.py`: g from both pixels' normals, exact on planes and on spheres to fourth order; any pinhole.
2. `balance.py`: how far depth and normals are right, from their disagreement over 1 to 32 pixels: errors of
   depth do not grow with the distance, those of integrated normals do. This sets pi and w of each view, so
   that bad normals harm little and bad depth is mended.
3. `integration.py`: phi is concave in the squared residuals, so reweighted least squares lower E in every
   round, however coarsely each is solved.
4. `multigrid.py`: the linear systems.
5. `refining.py`: from a `DepthMap` to a better one, with its sigma; unused where the anchors object.
   `alone.py`: depth of normals alone, where there is no depth to say on which side a surface ends.
"""

from recon.refinement.alone import integrate
from recon.refinement.refining import Refinement, refine, unrefined

__all__ = ["Refinement", "integrate", "refine", "unrefined"]
