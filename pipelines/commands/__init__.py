"""What the commands of `recon` do: options from flags and files, results to the disk. One file per kind."""
