"""What a user could bring of one room."""

from dataclasses import dataclass
from pathlib import Path

from recon.synthetic import Capture


@dataclass(frozen=True, eq=False)
class Room:
    folder: Path
    capture: Capture

    @property
    def photos(self) -> Path:
        return self.folder / "photos"

    @property
    def sparse(self) -> Path:
        return self.folder / "sparse"

    @property
    def predictions(self) -> Path:
        return self.folder / "predictions"

    def flags(self, out: Path) -> list[str]:
        """The command line that reconstructs the room from its true cameras and distorted predictions."""
        given = ["--sparse", str(self.sparse), "--predictions", str(self.predictions)]
        return ["multi", str(self.photos), str(out), *given, "--fuse.voxel-size", "0.05"]
