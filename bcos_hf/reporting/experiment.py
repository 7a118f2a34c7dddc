"""An experiment is a YAML file: a recipe, what each model changes in it, which explanations and measures are compared, and the claims that are judged."""

from dataclasses import dataclass, field
from pathlib import Path

from bcos_hf.training import yaml_settings


TASKS = ("text", "image", "clip")


@dataclass(frozen=True)
class Experiment:
    """What is trained and measured.

    Attributes:
        name: of the file and the results. title: for people; so is remark, a sentence below it. task: "text", "image" or "clip".
        recipe: settings of the recipe that all models share. models: name -> settings that it changes. seeds: one training of each model a seed.
        explainers: model -> names; "bcos" is the model's own explanation, others are names of `BASELINES`, with {name: options} where they take some.
        measures: name -> options, of `TEXT_MEASURES` or `IMAGE_MEASURES`.
        claims: what the papers say, each a dict as `judged` takes it.
    """

    name: str
    title: str
    task: str
    recipe: dict
    models: dict[str, dict]
    seeds: list[int]
    explainers: dict[str, list] = field(default_factory=dict)
    measures: dict[str, dict] = field(default_factory=dict)
    claims: list[dict] = field(default_factory=list)
    remark: str = ""

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"{self.name}: expected task {' or '.join(TASKS)}, got {self.task!r}.")
        if not self.seeds or not self.models:
            raise ValueError(f"{self.name}: expected at least one seed and one model, got seeds {self.seeds} and models {list(self.models)}.")
        if unknown := sorted(self.explainers.keys() - self.models.keys()):
            raise ValueError(f"{self.name}: explainers of models that there are not: {unknown}; models: {sorted(self.models)}.")

    @classmethod
    def read(cls, file: str | Path) -> "Experiment":
        """Of a YAML file, whose `recipe` is the path of a recipe's YAML, seen from it, and whose `settings` go over that for all models.

        As with recipes, `base: other.yaml` (beside it) stands for that file's keys but for its own.

        Raises:
            ValueError: a key that there is not, or values that cannot be right. OSError: no such file.
        """
        file = Path(file)
        given = yaml_settings(file)
        settings = {**yaml_settings(file.parent / given.pop("recipe")), **given.pop("settings", {})}
        if unknown := sorted(given.keys() - cls.__dataclass_fields__.keys()):
            raise ValueError(f"{file}: unknown keys {unknown}; expected some of {sorted(cls.__dataclass_fields__)} and settings.")
        models = {name: changed or {} for name, changed in given.pop("models").items()}
        measures = {name: options or {} for name, options in given.pop("measures", {}).items()}
        return cls(name=file.stem, recipe=settings, models=models, measures=measures, **given)
