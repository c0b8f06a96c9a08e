"""The errors a caller can meet. Each message says what was found, what was wanted, and where."""


class ReconError(Exception):
    """Base of every error that is the input's fault and not a bug."""


class InputError(ReconError):
    """A file, an array or an option is not what it has to be."""


class ViewError(ReconError):
    """One view cannot be used; the pipeline drops it and says why."""


class PipelineError(ReconError):
    """Stages do not fit together, or too few views are left to go on."""
