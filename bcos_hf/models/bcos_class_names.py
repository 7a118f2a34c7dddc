"""Classes by their names: what `config.id2label` calls the rows of a head, and which row a name means.

The keys of id2label may start anywhere and have gaps: a head has a row for each of them, in the order of the keys.
"""

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial

from transformers import PreTrainedConfig


SHOWN = 10  # names in a message


def class_names(config: PreTrainedConfig, count: int | None = None) -> list[str] | None:
    """The names of a head's classes, in the order of its logits.

    Args:
        config: whose `id2label` names them.
        count: number of logits; None: as many as `id2label` has.

    Returns:
        `count` names; None where the configuration names another number of classes, as that of a language model does.
    """
    named = config.id2label or {}
    if count is not None and len(named) != count:
        return None
    return [str(named[key]) for key in sorted(named)]


def names_of(model, count: int) -> list[str] | None:
    """As `class_names`, of any module: None of one without a configuration."""
    config = getattr(model, "config", None)
    return None if config is None else class_names(config, count)


def distinct_names(names: Iterable[str]) -> list[str]:
    """`names`, with the number of the class behind those that several have; ImageNet has two cranes."""
    names = list(names)
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names)]


def class_number(name: str, names: list[str], argument: str = "targets") -> int:
    """The number of the class that is called `name`, or `name (number)` where several are called so.

    Raises:
        ValueError: none is called so, or several are.
    """
    if names.count(name) == 1:
        return names.index(name)
    distinct = distinct_names(names)
    if name in distinct:
        return distinct.index(name)
    if name in names:
        several = [own for own, plain in zip(distinct, names, strict=True) if plain == name]
        raise ValueError(f"{argument}: {name!r} is the name of {len(several)} classes; expected one of {several}.")
    alike = [own for own in distinct if name.lower() in own.lower()] or get_close_matches(name, distinct, SHOWN)
    shown = (alike or distinct)[:SHOWN]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    raise ValueError(f"{argument}: expected one of the {len(names)} classes, such as {shown}{more}; got {name!r}.")


def written_class(text: str, names: list[str], argument: str = "--target") -> int:
    """The class that a person wrote: its name or, where no class is called by a number, its number from 0.

    Raises:
        ValueError: there is no such class.
    """
    numerals = any(name.strip().lstrip("+-").isdecimal() for name in names)
    if text in names or text in distinct_names(names) or numerals or not text.isdecimal():
        return class_number(text, names, argument)
    if int(text) >= len(names):
        raise ValueError(f"{argument}: expected a class from 0 to {len(names) - 1} or its name, got {text}.")
    return int(text)


def numbered(value, number_of: Callable[[str], int]):
    """Classes as `explain` takes them, with numbers in the place of names: a name, or lists of names and numbers.

    Args:
        value: what was given; all that holds no text comes back as it is.
        number_of: name -> number.
    """
    if getattr(getattr(value, "dtype", None), "kind", None) in ("U", "O"):  # an array of texts
        value = value.tolist()
    if isinstance(value, str):
        return number_of(value)
    if isinstance(value, list | tuple):
        return [numbered(one, number_of) for one in value]
    return value


def asked_classes(targets, contrast, number_of: Callable[[str, str], int]) -> tuple:
    """`targets` and `contrast` with numbers in the place of names; contrast "mean", of all classes, is none of them.

    Args:
        targets, contrast: as `explain` takes them.
        number_of: (name of the argument, name of the class) -> number.
    """
    targets = numbered(targets, partial(number_of, "targets"))
    is_mean = isinstance(contrast, str) and contrast == "mean"
    return targets, contrast if is_mean else numbered(contrast, partial(number_of, "contrast"))


def asked_labels(targets, contrast, labels: list[str] | None) -> tuple:
    """`asked_classes` of classes that are called as `labels` says; None: they have no names.

    Raises:
        ValueError: a name that no class has, or several have.
    """

    def number_of(argument: str, name: str) -> int:
        if labels is None:
            raise ValueError(f"{argument}: expected numbers, as these classes have no names; got {name!r}.")
        return class_number(name, labels, argument)

    return asked_classes(targets, contrast, number_of)
