"""The edge: photos, maps, meshes, sequences, COLMAP models. One file per foreign format or library."""
