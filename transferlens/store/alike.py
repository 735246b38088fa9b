"""What runs have in common, and how they differ in words.

- `check_alike` raises if runs differ in what an analysis needs them to share
- `arm_names` names the arm of each run
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from transferlens.store.config import RunConfig
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, checked

if TYPE_CHECKING:
    from transferlens.store.run import Run


def _scaling(run: Run) -> tuple[Any, ...]:
    """Return what the scale of the input follows from: the settings, or the values of the source."""
    config, how = run.config, run.config.training.normalise
    return how, config.changes_input, config.inner_fold, run.normalisation.tolist() if how == "source" else None


_COMPARED: dict[str, Callable[[Run], Any]] = {
    "backbone": lambda run: run.config.backbone,
    "dataset": lambda run: run.config.dataset,
    "truncate_after": lambda run: run.config.plan.truncate_after,
    "labels": lambda run: run.label_names,
    "held-out clips (fold)": lambda run: (run.clip_ids, run.labels.tolist()),
    "feature settings": lambda run: run.config.features,
    "features": lambda run: run.provenance["features_key"],
    "normalisation": _scaling,
}
SHARED = Rule(f"one of {', '.join(_COMPARED)}", _COMPARED.__contains__)


@checked
def check_alike(runs: Sequence[Run], *what: Annotated[str, SHARED]) -> None:
    """Raise ParameterError, naming two runs, if they differ in what an analysis needs them to share.

    That is "backbone", "dataset", "truncate_after", "labels", "held-out clips (fold)", "feature settings", "features"
    or "normalisation".
    """
    for run, name in itertools.product(runs[1:], what):
        value, first = _COMPARED[name](run), _COMPARED[name](runs[0])
        if value != first:
            values = f" ({value} and {first})" if isinstance(value, (str, int)) and name != "features" else ""
            raise ParameterError(
                f"ckpt={run.path} and {runs[0].path} differ in {name}{values}: compare runs that share it"
            )


class Configured(Protocol):
    """A run, or a summary of one."""

    @property
    def config(self) -> RunConfig:
        """The configuration."""

    @property
    def weights(self) -> str:
        """The names of the sources."""


def arm_names(runs: Sequence[Configured]) -> list[str]:
    """Return a name for each run, to be shown in figures: that of its plan, such as "pretrained" or "from scratch".

    If runs have the same plan but differ in settings, weights or data, the difference is added in parentheses: the
    settings, the names of the sources, or if they are the same, the first 8 digits of a hash. Runs that differ only in
    fold, seed or backbone have the same name.
    """
    configs = [run.config for run in runs]
    sources = {run.config: run.weights for run in runs}
    differences = [
        _differences(configs, lambda c: c.setting.split(", "), lambda c: (c.plan.title, c.dataset)),
        _differences(configs, lambda c: [f"from {sources[c]}"], lambda c: (c.plan.title, c.backbone)),
        _differences(
            configs, lambda c: [f"weights {c.weights_sha256[:8]}"], lambda c: (c.plan.title, c.backbone, sources[c])
        ),
        _differences(configs, lambda c: [f"data {c.data_key[:8]}"], lambda c: (c.plan.title, c.dataset, c.setting)),
    ]
    words = [list(itertools.chain(*parts)) for parts in zip(*differences, strict=True)]
    titles = [config.plan.title for config in configs]
    return [f"{title} ({', '.join(extra)})" if extra else title for title, extra in zip(titles, words, strict=True)]


def _differences(
    configs: Sequence[RunConfig], words: Callable[[RunConfig], list[str]], group: Callable[[RunConfig], Hashable]
) -> list[list[str]]:
    """Return for each run the words that describe it and that not all runs of its group have in common."""
    shared: dict[Hashable, set[str]] = {}
    for config in configs:
        shared[group(config)] = shared.get(group(config), set(words(config))) & set(words(config))
    return [[word for word in words(config) if word not in shared[group(config)]] for config in configs]
