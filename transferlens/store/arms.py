"""Names of the arms of runs, for figures and tables.

- `arm_names` says how the arm of each run differs from those of the others
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

from transferlens.store.config import RunConfig


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
