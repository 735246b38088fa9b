"""Means with confidence intervals; all intervals of the project are computed here.

Values are fractions: accuracies, or differences of them. Results are `Interval` and `Difference`, which
`transferlens.measures.intervals` defines.

- Over the folds of one cross-validation: `fold_interval` and `paired_difference`, by the corrected resampled t-test of
  Nadeau and Bengio; `mean_interval` without or with that correction.
- `adjusted` p-values for many differences.
- Over clips, for networks as they are: `share_interval` of an accuracy, `bootstrap_difference` of two, and
  `flip_difference` if clips may be few. Clips of one recording are not independent: where their recordings are known
  (`groups`), these are what varies.
- `fold_means` and `by_fold` average the seeds of each fold first; `standard_error` is that of a mean.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from transferlens.measures.intervals import Difference, Folds, Interval
from transferlens.util.errors import ParameterError
from transferlens.util.fields import at_least, checked, shown
from transferlens.util.grouping import group_by
from transferlens.util.lazy import scipy
from transferlens.util.text import counted

# By how much values may differ that are taken as equal.
ROUNDING = 1e-12
# A sequence of numbers, or of truth values, which `_checked` tests.
Values = Any


def fold_means(values: Sequence[float], rows: Sequence[Any]) -> Folds:
    """Return the mean over seeds of each fold, in order of first appearance: seeds are not independent folds.

    `values` has one number per row of `rows`, which name the `fold`. Rows with `n_train` and `n_clips`, the numbers of
    clips that the run was trained on and that it held out, say how the data were split; else the folds that are there
    are taken as all, less an `inner_fold`. Rows whose `score` is not the accuracy have no number of clips.
    """
    folds = group_by(zip(values, rows, strict=True), key=lambda pair: pair[1].fold).values()
    firsts: list[Any] = [pairs[0][1] for pairs in folds]
    kept = any(getattr(row, "inner_fold", "") for row in firsts)
    n_clips, n_train = (sum(getattr(row, name, np.nan) for row in firsts) for name in ("n_clips", "n_train"))
    recordings = [getattr(row, "n_recordings", 0) for row in firsts]
    is_share = all(getattr(row, "score", "accuracy") == "accuracy" for row in firsts)  # of the clips
    return Folds(
        [float(np.mean([value for value, _ in pairs])) for pairs in folds],
        test_to_train=n_clips / n_train if n_train > 0 else 1 / max(1, len(folds) - 1 - kept),
        n_clips=int(n_clips) if n_clips > 0 and is_share else 0,
        n_recordings=int(sum(recordings)) if all(recordings) else 0,
    )


def by_fold(rows: Iterable[Any], field: str, **values: Any) -> Folds:
    """Return the mean over seeds of a field in each fold, of the rows whose fields have the given values."""
    chosen = [row for row in rows if all(getattr(row, name) == value for name, value in values.items())]
    return fold_means([getattr(row, field) for row in chosen], chosen)


def _folds(values: Sequence[float]) -> Folds:
    return values if isinstance(values, Folds) else Folds(values)


def standard_error(values: Sequence[float]) -> float:
    """Compute the standard error of the mean of independent values; NaN for one value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


@checked
def mean_interval(
    values: Values,
    *,
    level: float = 0.95,
    bounds: Any = (0.0, 1.0),  # two numbers, which may be infinite
    test_to_train: Annotated[float, at_least(0)] = 0.0,
    groups: Sequence[str] = (),
) -> Interval:
    """Compute the mean with Student's t interval, wider if the values share training clips or come in groups.

    Values from the folds of one cross-validation do: taken as independent, their interval is too narrow for the
    accuracy on new data. Nadeau and Bengio [1]_ take (1/n + n_test/n_train) times their variance as that of the mean.

    Parameters
    ----------
    values : sequence of float, at least 1
    level : float in (0, 1)
    bounds : tuple of 2 float
        The range in which the mean can lie; the interval is cut to it.
    test_to_train : float >= 0
        Number of held-out clips over number of training clips, 1/4 with five folds. 0 takes the values as independent.
    groups : sequence of str, optional
        The recording of each value, if the values are of clips. Recordings are then taken as independent, not clips:
        the variance of the mean is that of the sums over recordings [2]_, with one less degrees of freedom than there
        are recordings. Default: every value is independent.

    Raises
    ------
    ParameterError
        If there is no value, or a number is outside its range.

    References
    ----------
    .. [1] C. Nadeau, Y. Bengio: Inference for the generalization error. Machine Learning 52 (2003), section 4.
    .. [2] W. G. Cochran: Sampling Techniques. 1977, section 9A.1 (clusters of unequal size, ratio to size).

    Examples
    --------
    >>> print(mean_interval([0.90, 0.92, 0.94]))
    92.0 % (95 % interval 87.0 to 97.0), n = 3
    >>> print(mean_interval([0.90, 0.92, 0.94], test_to_train=1 / 2))
    92.0 % (95 % interval 84.1 to 99.9), n = 3
    """
    x = _checked(values)
    check_level(level)
    mean, n = float(x.mean()), x.size
    sums, sizes = _sums(x, groups)
    if not _varies(sums / sizes):
        return _unbounded(x, len(sums), level)
    variance = _variance_of_mean(sums, sizes) + test_to_train * x.var(ddof=1)
    half = scipy.stats.t.ppf((1 + level) / 2, len(sums) - 1) * np.sqrt(variance)
    low, high = np.clip([mean - half, mean + half], *bounds).tolist()
    return Interval(mean, low, high, n, level)


def _varies(values: np.ndarray) -> bool:
    """Return whether values differ by more than the rounding of means over seeds."""
    return bool(np.ptp(values) > ROUNDING)


def _unbounded(values: np.ndarray, n_groups: int, level: float) -> Interval:
    """Return a mean without an interval: one recording, or equal ones, do not tell how others would be."""
    why = "values are equal"
    if _varies(values):
        why = "clips are of one recording" if n_groups == 1 else "recordings have equal means"
    note = f"no interval: all {why}" if len(values) > 1 else ""
    return Interval(float(values.mean()), np.nan, np.nan, len(values), level, note)


def _sums(values: np.ndarray, groups: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the sum and the number of the values of each group; without groups every value is one."""
    if not len(groups):
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ParameterError(f"groups has {len(groups)} names and there are {len(values)} values: give one per value")
    places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    return np.bincount(places, values), np.bincount(places).astype(float)


def _variance_of_mean(sums: np.ndarray, sizes: np.ndarray) -> float:
    """Return the variance of the mean of values whose groups are independent, by the sums over groups."""
    n, residuals = len(sums), sums - sizes * sums.sum() / sizes.sum()
    return float(n / (n - 1) * np.square(residuals).sum() / sizes.sum() ** 2)


def fold_interval(
    values: Sequence[float], *, bounds: tuple[float, float] = (0.0, 1.0), level: float = 0.95
) -> Interval:
    """Compute the mean over the folds of one cross-validation, corrected for the training clips that they share.

    It is `mean_interval` with the ratio of held-out to training clips of the split: also if only some of the folds were
    held out. It is conservative: in real cross-validations 96 to 99 % of such intervals contain the true accuracy, and
    89 to 93 % of the plain ones, which stand next to it (``benchmarks/intervals.md``).

    Accuracies that are equal in all folds, such as 1, have Wilson's interval over the held-out clips instead, if their
    number is known.

    Parameters
    ----------
    values : Folds, or sequence of float
        One per fold. `Folds`, as `by_fold` returns them, know how the data were split; of other values all folds are
        taken to be there, so that one is held out and the others are trained on.
    bounds, level
        As for `mean_interval`.

    Examples
    --------
    >>> print(fold_interval([0.90, 0.92, 0.94]))
    92.0 % (95 % interval 84.1 to 99.9, plain 87.0 to 97.0), n = 3
    >>> print(fold_interval(Folds([0.90, 0.92, 0.94], test_to_train=1 / 4)))
    92.0 % (95 % interval 85.4 to 98.6, plain 87.0 to 97.0), n = 3
    """
    folds = _folds(values)
    interval = mean_interval(folds, level=level, bounds=bounds, test_to_train=folds.test_to_train)
    if interval.is_bounded:
        plain = mean_interval(folds, level=level, bounds=bounds)
        return replace(interval, plain_low=plain.low, plain_high=plain.high)
    if len(folds) == 1 or not folds.n_clips or bounds != (0.0, 1.0):
        return interval
    low, high = _wilson(interval.mean, folds.n_recordings or folds.n_clips, level)
    note = f"Wilson's over {clips_text(folds.n_clips, folds.n_recordings)}, as all folds are equal"
    return replace(interval, low=low, high=high, note=note)


def paired_difference(
    a: Sequence[float], b: Sequence[float], *, test_to_train: float | None = None, level: float = 0.95
) -> Difference:
    """Compare `a` with `b`, fold by fold, by the corrected resampled t-test (see `mean_interval`).

    Parameters
    ----------
    a, b : Folds, or sequence of float
        Accuracies of two arms on the same folds, in the same order.
    test_to_train : float >= 0, optional
        Number of held-out clips over number of training clips. Default: that of `a`, as for `fold_interval`.
    level : float in (0, 1)

    Returns
    -------
    Difference
        Of `a` minus `b`.

    Raises
    ------
    ParameterError
        If the lengths differ, or as for `mean_interval`.

    Examples
    --------
    >>> print(paired_difference([0.92, 0.95, 0.93], [0.90, 0.90, 0.90]))
    3.3 points (95 % interval -2.7 to 9.3, plain -0.5 to 7.1), n = 3, p = 0.139
    >>> print(paired_difference([0.92, 0.95, 0.93], [0.91, 0.94, 0.92]))
    1.0 points (no interval: all values are equal), n = 3
    """
    if len(a) != len(b):
        raise ParameterError(f"a has {len(a)} folds and b has {len(b)}: they must be of the same folds")
    ratio = _folds(a).test_to_train if test_to_train is None else test_to_train
    return fold_difference(Folds(np.subtract(a, b).tolist(), test_to_train=ratio), level=level)


def fold_difference(differences: Sequence[float], *, level: float = 0.95) -> Difference:
    """Compute the mean of differences, one per fold, with the corrected resampled t-test; see `fold_interval`."""
    folds = _folds(differences)
    interval = fold_interval(folds, bounds=(-1.0, 1.0), level=level)
    if not interval.is_bounded:
        return Difference(interval, float("nan"))
    error = np.std(folds, ddof=1) * np.sqrt(1 / interval.n + folds.test_to_train)
    return Difference(interval, float(2 * scipy.stats.t.sf(abs(interval.mean) / error, interval.n - 1)))


def adjusted(differences: Sequence[Difference]) -> list[Difference]:
    """Return differences with p-values adjusted for their number: of those below 0.05, 5 % are false at most.

    By Benjamini and Hochberg's procedure; NaN, where there was no test, remains and does not count.

    References
    ----------
    Y. Benjamini, Y. Hochberg: Controlling the false discovery rate. Journal of the Royal Statistical Society B 57
    (1995).

    Examples
    --------
    >>> differences = [Difference(mean_interval([0.0, 0.1]), p) for p in (0.01, float("nan"), 0.04, 0.9)]
    >>> [round(difference.p_adjusted, 3) for difference in adjusted(differences)]
    [0.03, nan, 0.06, 0.9]
    """
    p = np.array([difference.p_value for difference in differences])
    tested = np.isfinite(p)
    p[tested] = scipy.stats.false_discovery_control(p[tested]) if tested.any() else p[tested]
    return [replace(each, p_adjusted=value) for each, value in zip(differences, p.tolist(), strict=True)]


def _wilson(share: float, n: float, level: float) -> tuple[float, float]:
    """Return the bounds of Wilson's score interval; neither `n` nor the number of hits needs to be whole."""
    z2 = scipy.stats.norm.ppf((1 + level) / 2) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    return float(np.clip(middle - half, 0, 1)), float(np.clip(middle + half, 0, 1))


@checked
def share_interval(values: Values, *, groups: Sequence[str] = (), level: float = 0.95) -> Interval:
    """Compute an accuracy with Wilson's score interval [1]_ [2]_, over recordings if clips have groups.

    As clips of one recording are alike, n clips tell as much as n / (1 + (m - 1) r) independent ones, where m is the
    mean number of clips in the recording of a clip, and r the correlation of clips of one recording (by analysis of
    variance, 0 to 1; 1 if all values are equal) [3]_. Wilson's interval is computed for this number, with the
    correction of [4]_ for few recordings.

    Parameters
    ----------
    values : sequence of float in [0, 1]
        One per clip: whether it was classified correctly, or the share of networks that did.
    groups : sequence of str, optional
        The recording of each clip. Default: every clip is independent.
    level : float in (0, 1)

    References
    ----------
    .. [1] E. B. Wilson: Probable inference, the law of succession, and statistical inference. JASA 22 (1927).
    .. [2] R. G. Newcombe: Two-sided confidence intervals for the single proportion. Statistics in Medicine 17 (1998).
    .. [3] J. N. K. Rao, A. J. Scott: A simple method for the analysis of clustered binary data. Biometrics 48 (1992).
    .. [4] E. L. Korn, B. I. Graubard: Confidence intervals for proportions with small expected number of positive
       counts estimated from survey data. Survey Methodology 24 (1998), section 2.

    Examples
    --------
    >>> print(share_interval([1] * 72 + [0] * 8))
    90.0 % (95 % interval 81.5 to 94.8), n = 80
    >>> print(share_interval([1] * 72 + [0] * 8, groups=[str(i // 4) for i in range(80)]))
    90.0 % (95 % interval 68.2 to 97.4), n = 80
    """
    x = _checked(values)
    check_level(level)
    if x.min() < 0 or x.max() > 1:
        raise ParameterError(f"values from {x.min():g} to {x.max():g} must be from 0 to 1")
    mean, n, (sums, sizes) = float(x.mean()), x.size, _sums(x, groups)
    if len(sums) == 1:
        return _unbounded(x, len(sums), level)
    effective = n / (1 + (np.square(sizes).sum() / n - 1) * _correlation(x, sums, sizes))
    if len(sums) < n:
        effective *= (scipy.stats.norm.ppf((1 + level) / 2) / scipy.stats.t.ppf((1 + level) / 2, len(sums) - 1)) ** 2
    if _varies(x):  # shares of networks vary less than ones and zeros do
        effective *= mean * (1 - mean) / x.var()
    return Interval(mean, *_wilson(mean, effective, level), n, level)


def _correlation(values: np.ndarray, sums: np.ndarray, sizes: np.ndarray) -> float:
    """Return the correlation of values of one group, by analysis of variance; 1 if all values are equal."""
    n, k = sizes.sum(), len(sums)
    if k == n or not _varies(values):
        return 1.0
    between = np.square(sums - sizes * values.mean()) @ (1 / sizes) / (k - 1)
    within = (np.square(values).sum() - np.square(sums) @ (1 / sizes)) / (n - k)
    size = (n - np.square(sizes).sum() / n) / (k - 1)
    return float(np.clip((between - within) / (between + (size - 1) * within), 0, 1))


@checked
def bootstrap_difference(
    values: Values,
    *,
    groups: Sequence[str] = (),
    level: float = 0.95,
    resamples: Annotated[int, at_least(1)] = 9999,
) -> Difference:
    """Compute the mean over clips with its percentile bootstrap interval, over recordings if clips have groups.

    It tells how far the mean would move with other recordings, not how far another training would move it. The p-value
    is twice the share of resampled means on the other side of 0.

    Parameters
    ----------
    values : sequence of float
        One per clip: the difference of two networks there.
    groups : sequence of str, optional
        The recording of each clip. Default: every clip is independent.
    level : float in (0, 1)
    resamples : int > 0

    References
    ----------
    A. C. Davison, D. V. Hinkley: Bootstrap Methods and their Application. 1997, chapter 5 and section 4.4.
    """
    x = _checked(values)
    check_level(level)
    sums, sizes = _sums(x, groups)
    if not _varies(sums / sizes):
        return Difference(_unbounded(x, len(sums), level), float("nan"))
    means = _resampled(sums, sizes, resamples)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Difference(Interval(float(x.mean()), low, high, x.size, level), two_sided(means))


def two_sided(resampled: np.ndarray) -> float:
    """Return the p-value of resampled differences: twice the share of them on the other side of 0."""
    beyond = min((resampled <= ROUNDING).sum(), (resampled >= -ROUNDING).sum())
    return float(min(1.0, 2 * (1 + beyond) / (1 + len(resampled))))


def flip_difference(
    values: Values, *, groups: Sequence[str] = (), level: float = 0.95, resamples: int = 9999
) -> Difference:
    """Compute the mean over few clips, such as those of one class, with Student's t interval and a test by signs.

    With few recordings, bootstrap intervals are too narrow. If two networks are alike, the difference of each recording
    could as well have the other sign: the p-value is the share of random signs that make the mean at least as far from
    0 as it is, whatever the number of recordings. There is one even if all values are equal, which leaves no interval.

    Parameters
    ----------
    values, groups, level, resamples
        As for `bootstrap_difference`; the interval is that of `mean_interval`.

    References
    ----------
    R. A. Fisher: The Design of Experiments. 1935, section 21.

    Examples
    --------
    >>> flip_difference([0, 0, 0]).p_value, flip_difference([1] * 20).p_value
    (1.0, 0.0001)
    """
    interval = mean_interval(values, level=level, bounds=(-1.0, 1.0), groups=groups)
    sums = _sums(_checked(values), groups)[0]
    sums = sums[np.abs(sums) > ROUNDING]  # others have no sign
    rng, beyond = np.random.default_rng(0), 0
    for n in np.diff([*range(0, resamples, 1000), resamples]):
        flipped = rng.choice([-1.0, 1.0], size=(n, len(sums))) @ sums
        beyond += int((np.abs(flipped) >= abs(sums.sum()) - ROUNDING).sum())
    return Difference(interval, (1 + beyond) / (1 + resamples))


def _resampled(sums: np.ndarray, sizes: np.ndarray, resamples: int) -> np.ndarray:
    """Return the mean of groups that are drawn with replacement, as often as asked for [shape=(resamples,)]."""
    rng, means = np.random.default_rng(0), []
    for n in np.diff([*range(0, resamples, 1000), resamples]):  # part by part, to limit memory
        drawn = rng.integers(len(sums), size=(n, len(sums)))
        means.append(sums[drawn].sum(1) / sizes[drawn].sum(1))
    return np.concatenate(means)


def clips_text(n_clips: int, n_recordings: int) -> str:
    """Return what an interval is over, in words: "400 clips of 304 recordings", or "400 clips" (0 recordings)."""
    return counted(n_clips, "clip") + (f" of {counted(n_recordings, 'recording')}" if n_recordings else "")


def _checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the values as an array; raise if they are not finite numbers along one axis."""
    try:
        x = np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        raise ParameterError(f"values={shown(values)} must be numbers") from None
    if x.ndim != 1 or x.size == 0:
        raise ParameterError(f"values of shape {x.shape} must be one axis of at least 1 value")
    if not np.isfinite(x).all():
        raise ParameterError(f"values must be finite: {shown(x.tolist())}")
    return x


def check_level(level: float) -> None:
    """Raise if a confidence level is outside its range."""
    if not isinstance(level, numbers.Real) or not 0 < level < 1:
        raise ParameterError(f"level={level!r} must lie between 0 and 1")
