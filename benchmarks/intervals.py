"""How often 95 % intervals contain the true accuracy: over folds of real cross-validations, and over clips in groups.

    python benchmarks/intervals.py

Folds: data sets are drawn from a large population, and classifiers are trained and tested by five-fold cross-validation
on each. The true accuracy is the mean over all data sets. Clips: made-up hits, as alike within recordings as said, with
as many clips per recording as in ESC-10, or ten in each. Writes benchmarks/intervals.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from claims import markdown

from transferlens import cli
from transferlens.measures import stats
from transferlens.measures.stats import Interval

FOLDS = 5
# Numbers of clips per recording, and how many recordings have them.
RECORDINGS = {
    "400 clips of 304 recordings (ESC-10)": np.repeat([1, 2, 3, 4, 5, 6, 7], [237, 51, 10, 2, 2, 1, 1]),
    "200 clips of 20 recordings": np.full(20, 10),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the coverage of intervals."""

    datasets: int = 1000
    """Data sets that are drawn, and repetitions for clips in groups."""
    size: int = 400
    """Samples in a data set."""


def cross_validated(n_datasets: int, size: int) -> dict[str, np.ndarray]:
    """Return held-out accuracies by classifier [shape=(n_datasets, n_folds)], and their differences."""
    from sklearn.datasets import make_classification
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold
    from sklearn.tree import DecisionTreeClassifier

    X, y = make_classification(100_000, n_features=10, n_informative=5, class_sep=1.0, flip_y=0.05, random_state=0)
    rng = np.random.default_rng(0)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    kinds = {"logistic regression": LogisticRegression(), "decision tree": DecisionTreeClassifier(random_state=0)}
    found: dict[str, list[list[float]]] = {name: [] for name in kinds}
    for _ in range(n_datasets):
        drawn = rng.choice(len(X), size, replace=False)
        x, labels = X[drawn], y[drawn]
        splits = list(folds.split(x, labels))
        for name, kind in kinds.items():
            scores = [kind.fit(x[train], labels[train]).score(x[test], labels[test]) for train, test in splits]
            found[name].append(scores)
    first, second = map(np.array, found.values())
    return {name: np.array(values) for name, values in found.items()} | {"difference of both": first - second}


def covered(intervals: Sequence[tuple[float, float]], truth: float) -> tuple[float, float]:
    """Return the share of intervals that contain a value, and their mean width; those without bounds do not count."""
    low, high = np.array(intervals).T
    there = np.isfinite(low)
    return float(((low <= truth) & (truth <= high))[there].mean()), float((high - low)[there].mean())


def over_folds(n_datasets: int, size: int) -> list[dict[str, Any]]:
    """Return the coverage of the corrected and of the plain interval."""
    rows = []
    for name, accuracies in cross_validated(n_datasets, size).items():
        bounds = (-1.0, 1.0) if name.startswith("difference") else (0.0, 1.0)
        made = [stats.fold_interval(folds, bounds=bounds) for folds in accuracies]
        ends = {
            "corrected": [(each.low, each.high) for each in made],
            "plain": [(each.plain_low, each.plain_high) for each in made],
        }
        rows.append({"what": name} | {kind: covered(pairs, accuracies.mean()) for kind, pairs in ends.items()})
    return rows


def hits(sizes: np.ndarray, accuracy: float, correlation: float, rng: np.random.Generator) -> np.ndarray:
    """Return made-up hits: the share of hits in a recording is from a beta distribution."""
    strength = 1 / correlation - 1 if correlation else 0.0
    shares = rng.beta(accuracy * strength, (1 - accuracy) * strength, len(sizes)) if correlation else accuracy
    return (rng.random(sizes.sum()) < np.repeat(np.broadcast_to(shares, len(sizes)), sizes)).astype(float)


def over_clips(n: int) -> list[dict[str, Any]]:
    """Return the coverage of intervals over clips, and of those over recordings."""
    kinds: Mapping[str, Callable[[np.ndarray, list[str]], Interval]] = {
        "Wilson over clips": lambda x, groups: stats.share_interval(x),
        "Wilson over recordings": lambda x, groups: stats.share_interval(x, groups=groups),
        "bootstrap over recordings": lambda x, groups: (
            stats.bootstrap_difference(x, groups=groups, resamples=400).interval
        ),
    }
    rows = []
    for name, sizes in RECORDINGS.items():
        groups = [f"{i:03}" for i in np.repeat(np.arange(len(sizes)), sizes)]
        for accuracy in (0.8, 0.95):
            for correlation in (0.0, 0.3, 0.7):
                rng = np.random.default_rng(0)
                samples = [hits(sizes, accuracy, correlation, rng) for _ in range(n)]
                found = {}
                for kind, interval in kinds.items():
                    made = [interval(x, groups) for x in samples]
                    found[kind] = covered([(each.low, each.high) for each in made], accuracy)
                rows.append({"what": f"{name}, accuracy {accuracy:g}, correlation {correlation:g}"} | found)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return coverages [%] with mean widths [points] as a table in Markdown."""
    head = list(rows[0])
    cells = [[row["what"], *(f"{row[k][0]:.1%} ({100 * row[k][1]:.1f})" for k in head[1:])] for row in rows]
    return markdown([["", *head[1:]], *cells])


def work(options: Options) -> int:
    """Measure, print and write the tables."""
    text = f"""## Coverage of 95 % intervals

How often an interval contains the true value, and in parentheses its mean width [points],
in {options.datasets} repetitions.

Over folds: cross-validations of data sets of {options.size} samples; the corrected interval is Nadeau and Bengio's.

{table(over_folds(options.datasets, options.size))}

Over clips that come in recordings:

{table(over_clips(options.datasets))}
"""
    print(text)
    (Path(__file__).parent / "intervals.md").write_text(text)
    return cli.DONE


main = cli.Command("benchmarks/intervals.py", Options, work)

if __name__ == "__main__":
    sys.exit(main())
