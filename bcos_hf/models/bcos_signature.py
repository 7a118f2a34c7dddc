"""What a twin's forward pass says that it takes: what the standard model's takes."""

import inspect
from collections.abc import Callable
from functools import wraps


def called_as(forward: Callable, standard: Callable) -> Callable:
    """`forward`, which takes some arguments as **kwargs, with the signature of the `standard` one.

    Trainer keeps the columns of a data set that the signature names, and drops the others without a word.
    """
    own, theirs = (inspect.signature(function).parameters for function in (forward, standard))
    if own.keys() >= theirs.keys():
        return forward
    named = {name: one for name, one in theirs.items() if one.kind is one.POSITIONAL_OR_KEYWORD}
    more = {name: one.replace(kind=one.KEYWORD_ONLY) for name, one in own.items() if name not in theirs}
    names = [name for name in named if name != "self"]

    @wraps(forward)
    def called(self, *args, **kwargs):
        if len(args) > len(names):
            raise TypeError(f"forward: expected at most {len(names)} positional arguments, got {len(args)}.")
        return forward(self, **dict(zip(names, args, strict=False)), **kwargs)

    last = inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)
    more = [one for one in more.values() if one.name != "kwargs"]
    called.__signature__ = inspect.Signature([*named.values(), *more, last])
    return called
