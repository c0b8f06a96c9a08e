"""Every step by hand, on arrays: no store, no graph. What the pipeline does, for one who wants another order.

python examples/04_stage_by_stage.py OUT
"""

import sys
from pathlib import Path

from recon import synthetic
from recon.alignment import align
from recon.evaluation import depth_metrics, describe, evaluate_mesh
from recon.fusion import TSDFVolume
from recon.io.meshes import write_mesh


def main(out: Path) -> None:
    world = synthetic.room(seed=0)
    capture = synthetic.capture(world, synthetic.room_cameras(world, 160, 120, 8), seed=0, supersample=1)
    volume = TSDFVolume(voxel_size=0.05)
    for number, view in enumerate(capture.scene.views):
        truth = capture.depth_maps[view.name]
        prediction = synthetic.distort(truth, seed=number)  # as a network would see it
        aligned = align(prediction, capture.scene.anchors(view), view.camera)
        error = depth_metrics(aligned.depth_map.depth, truth.depth).abs_rel
        print(f"{view.name}: {aligned.fit.held_out_error:.2%} at held-out points, {error:.2%} in truth")
        volume.integrate(aligned.depth_map, view.cam_from_world, capture.images[view.name])
    mesh = volume.extract()
    print(describe(evaluate_mesh(mesh, capture.mesh, views=capture.scene.views)))
    write_mesh(out / "room.ply", mesh)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(f"usage: {__doc__.splitlines()[2]}", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]))
