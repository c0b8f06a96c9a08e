"""A device that is not there: what is computed on "cuda" is computed by the processor, but kept apart.

Within `pretended_gpu()` a tensor on "cuda" is one in ordinary memory with a mark. As on a GPU, it has to be
brought back before numpy sees it, and an operation on marked and unmarked tensors is an error (numbers
without dimensions may stay on the host). So tests find on any machine what was left on the wrong side; not
what a GPU itself does differently.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map

GPU = torch.device("cuda", 0)
TO_NUMPY = {Tensor.numpy, Tensor.__array__}
MOVES = {Tensor.to, Tensor.cpu, Tensor.cuda}


class _Marked(Tensor):
    """A tensor that is said to be on the device."""


class _Mode(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, Tensor)]
        there = any(isinstance(one, _Marked) for one in tensors)
        if func == Tensor.device.__get__:
            return GPU if there else torch.device("cpu")
        if there and func in TO_NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func in MOVES:
            return _moved(func, args, kwargs)
        asked = kwargs.get("device")
        if asked is not None and torch.device(asked).type == "cuda":
            return _mark(func(*args, **(kwargs | {"device": "cpu"})), True)
        away = [one for one in tensors if not isinstance(one, _Marked) and one.dim()]
        if there and away and func is not Tensor.copy_:
            raise RuntimeError(f"{func.__name__}: tensors on cuda:0 and on cpu, {tuple(away[0].shape)}")
        return _mark(func(*args, **kwargs), there and asked is None)


def _moved(func: Any, args: Any, kwargs: Any) -> Any:
    """Returns the first argument on the other side, or converted and where it was."""
    tensor, *rest = args
    is_there = isinstance(tensor, _Marked)
    if func is not Tensor.to:
        return _mark(tensor.clone(), func is Tensor.cuda)
    for one in (*rest, *kwargs.values()):
        if isinstance(one, Tensor):
            is_there = isinstance(one, _Marked)
        elif isinstance(one, str | torch.device):
            is_there = torch.device(one).type == "cuda"
    dtypes = [one for one in (*rest, *kwargs.values()) if isinstance(one, torch.dtype)]
    same = is_there == isinstance(tensor, _Marked)
    converted = tensor.to(dtypes[0]) if dtypes else tensor
    return _mark(converted if same else converted.clone(), is_there)


def _mark(made: Any, there: bool) -> Any:
    def marked(one: Any) -> Any:
        if isinstance(one, Tensor) and there != isinstance(one, _Marked):
            return one.as_subclass(_Marked if there else Tensor)
        return one

    return tree_map(marked, made)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Computes what is asked of the device "cuda" without one."""
    with _Mode():
        yield
