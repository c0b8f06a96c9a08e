"""Depth maps with known poses, from any source, fused into a mesh: the volume on its own.

python examples/03_fuse_depth_maps.py OUT
"""

import sys
from pathlib import Path

from recon import synthetic
from recon.fusion import TSDFVolume, choose_voxel_size
from recon.io.meshes import write_mesh


def main(out: Path) -> None:
    # stands for a scanner: a table-top with exact depth, normals, colours and poses
    world = synthetic.tabletop(seed=0)
    capture = synthetic.capture(world, synthetic.tabletop_cameras(world, 160, 120, 8), seed=0, supersample=1)

    volume = TSDFVolume(choose_voxel_size(list(capture.depth_maps.values())))
    for view in capture.scene.views:
        volume.integrate(capture.depth_maps[view.name], view.cam_from_world, capture.images[view.name])
    mesh = volume.extract()
    write_mesh(out / "table.ply", mesh)
    print(f"{len(mesh.faces)} faces in {out / 'table.ply'}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(f"usage: {__doc__.splitlines()[2]}", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]))
