"""A prediction put into scene units with the sparse points that its view sees, and how sure that is.

Model: g(z_aff) = a * x + b and z = z_aff * exp(s). z is depth, x the prediction, g the space in which the
prediction is affine: 1/z for disparity, z for depth, log z (with x the log of the prediction) for a depth of
wrong contrast. s is smooth over the picture and over depth, and 0 where the anchors show no need for it.

1. `line.py`, start, on `points.py`: truncated L1, exact over all lines through an anchor (the idea of MoGe's
   alignment, Wang et al. 2025): the optimum passes through an anchor, and along the lines through one anchor
   the cost is piecewise linear in a. No random trials; 40 % of gross outliers do not matter.
2. `line.py`, fit: Geman-McClure by reweighted least squares from there, with a noise model estimated from the
   residuals (`noise.py`): partly uniform in g(z), partly proportional to depth, divided by the confidence,
   plus the anchors' own sigma.
3. `line.py`, check: cross validation whose folds are made of image tiles gives the error away from anchors.
   It decides whether a depth without shift gets one, and it sets the sigma of the depth map.
4. `usable.py` and `affine.py`: which anchors count, and which models a kind of prediction allows, each in its
   own space (`spaces.py`).
5. `field.py`, on `waves.py`: the smooth error of log depth that remains, as a robust Gaussian process over
   the picture and depth; `few.py` has its settings where anchors are few. The same cross validation decides
   whether the view gets this correction (`smooth.py`).
6. `depth.py`: the depth map; `aligning.py`: all of the above in order.
7. `doubt.py`: where anchors nearby agree that the depth map is wrong, robust fit or not.
8. `joint.py`, on `comparison.py`: what the anchors of each view leave open, solved so that all views agree.
"""

from recon.alignment.affine import Fit
from recon.alignment.aligning import Alignment, align, fold_of
from recon.alignment.doubt import doubted
from recon.alignment.joint import Correction, agree, corrected

__all__ = ["Alignment", "Correction", "Fit", "agree", "align", "corrected", "doubted", "fold_of"]
