"""Other networks as predictors: each a small file, named on the command line as package.module:Class."""
