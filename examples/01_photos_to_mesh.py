"""A folder of photos to a mesh, from Python: what `recon multi` does, with the result in hand.

python examples/01_photos_to_mesh.py PHOTOS OUT
"""

import sys
from pathlib import Path

import pipelines
from recon.io.meshes import write_mesh


def main(photo_folder: Path, out: Path) -> None:
    photos = pipelines.find_photos(photo_folder, out / "cache")
    store = pipelines.DiskStore(out / "cache")  # a dict keeps nothing after the process
    outcome = pipelines.run(pipelines.MultiView(), photos, store)

    for view in outcome.views("aligned"):
        fit = outcome.get("aligned", view).fit
        print(f"{view}: depth is off by {fit.held_out_error:.2%} at sparse points it did not see")
    for name, reason in outcome.dropped.items():
        print(f"{name} left out: {reason}")
    mesh = outcome.get("mesh")
    write_mesh(out / "mesh.glb", mesh)
    print(f"{len(mesh.faces)} faces in {out / 'mesh.glb'}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        print(f"usage: {__doc__.splitlines()[2]}", file=sys.stderr)
        sys.exit(2)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
