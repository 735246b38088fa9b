"""What plans start from: the sources that a plan names, and whether one has seen clips that a run is evaluated on.

- `resolve` returns a plan with the sources that it names
- `check_unseen` raises if a source was trained on held-out clips or their recordings
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from operator import attrgetter

from transferlens.features.cache import CONTENT, FeatureCache
from transferlens.models.plan import SOURCES, TransferPlan
from transferlens.models.weights import Source, Weights
from transferlens.store.config import RunConfig
from transferlens.store.sources import RunWeights
from transferlens.util.errors import ParameterError, warn_once
from transferlens.util.grouping import group_by
from transferlens.util.text import counted, natural, some

FREESOUND = re.compile("[1-9][0-9]{4,5}")  # an id that no other recording is likely to have
SHOWN = 5  # recordings in a message


def resolve(
    plan: TransferPlan, known: Sequence[Source], name: str | None = None
) -> tuple[TransferPlan, tuple[Source, ...]]:
    """Return the plan as runs have it, and the sources that it names, in its order.

    Parameters
    ----------
    plan : TransferPlan
        Its letters are the first letters of sources; I is also that of a single one.
    known : sequence of Source
    name : str, optional
        The one source of `known` that the plan may name. Default: all.

    Raises
    ------
    ParameterError
        If a letter does not name one source, or a source is not named.
    """
    sources = [source for source in known if name in (None, source.name)]
    if not sources:
        raise ParameterError(f"source={name!r} must be one of {some(source.name for source in known)}")
    if not plan.letters:
        return plan, ()
    by_letter = group_by(sources, attrgetter("letter"))
    if len(sources) == 1:
        by_letter[SOURCES[0]] = sources
    if unknown := [letter for letter in plan.letters if len(by_letter.get(letter, ())) != 1]:
        names = some(f"{source.name} ({source.letter})" for source in sources)
        if twice := by_letter.get(unknown[0]):
            problem, remedy = "several sources begin", f"rename {twice[-1].name}, so that the first letters differ"
        else:
            problem = "no source begins"
            remedy = f"name the source of each block by start, such as {5 * sources[0].letter}, or give one source"
        raise ParameterError(f"plan={str(plan)!r}: {problem} with {unknown[0]}; the sources are {names}: {remedy}")
    chosen = {letter: by_letter[letter][0] for letter in plan.letters}
    if unused := [source.name for source in sources if source not in chosen.values()]:
        raise ParameterError(f"source={some(unused)!r} has no effect: the plan {plan} does not name it")
    named = tuple(dict.fromkeys(chosen.values()))  # a single source may have two letters
    return plan.renamed({letter: SOURCES[named.index(source)] for letter, source in chosen.items()}), named


def check_unseen(point: RunConfig, name: str, weights: Weights, cache: FeatureCache) -> None:
    """Raise if the run that a point starts from has seen its held-out clips; warn if its input was another.

    Parameters
    ----------
    point : RunConfig
    name : str
        Of the source.
    weights : Weights
        Those of the source; of a file that is not a run, nothing is known.
    cache : FeatureCache
        Of the data set of the point.

    Raises
    ------
    ParameterError
        If the source was trained on clips or recordings that the point is evaluated on.
    """
    if not isinstance(weights, RunWeights):
        return
    config, here, clips = weights.config, point.features, cache.dataset.clips
    evaluated_on = (point.fold, point.inner_fold)
    held_out = {clip.id for clip in clips if clip.fold in evaluated_on}
    is_same_data = config.dataset == point.dataset and weights.clip_ids <= {clip.id for clip in clips}
    if is_same_data and not held_out <= weights.clip_ids:
        raise ParameterError(
            f"source={name}: its run held out fold {config.fold} of these clips, and has seen clips of fold "
            f"{' or '.join(filter(None, evaluated_on))}, which is held out here; give folds={config.fold}"
        )
    _check_recordings(point, name, weights, cache, is_same_data=is_same_data)
    names = ("windows", "hops", "n_mels")
    if changed := [key for key in names if getattr(config.features, key) != getattr(here, key)]:
        warn_once(f"source {name} was trained on features with other {some(changed)}")
    if config.training.normalise != point.training.normalise != "source":
        warn_once(f"source {name} was trained with normalise={config.training.normalise!r}")


def _check_recordings(
    point: RunConfig, name: str, weights: RunWeights, cache: FeatureCache, *, is_same_data: bool
) -> None:
    """Raise if the run that a point starts from was trained on recordings that the point is evaluated on.

    Files are the same if their content is. Ids as of Freesound, of five or six digits, are taken for the same
    recording in any two data sets; other names, such as "1" or a date, may be of two, and are only warned of, as
    are recordings that both runs are trained on.
    """
    names, (rows, _) = cache.names, cache.dataset.split(point.fold, point.inner_fold)
    trained_on: set[str] = set().union(*(names[i] for i in rows))
    evaluated_on = set().union(*names) - trained_on
    remedy = "leave them out of its clips (`duplicates --against ... --leave-out FILE`), and train it again"
    held_out, shared = weights.recordings & evaluated_on, weights.recordings & trained_on
    if certain := [each for each in held_out if each.startswith(CONTENT) or FREESOUND.fullmatch(each)]:
        seen = f"was trained on {_recordings(certain)}, held out here with fold {point.fold}"
        raise ParameterError(f"source={name}: its run {seen}; {remedy}")
    if held_out:
        words = f"{_recordings(held_out)}, names of clips that are held out here: if they are the same, {remedy}"
        warn_once(f"source {name} was trained on {words}")
    elif shared and not is_same_data:
        warn_once(f"source {name} was trained on {_recordings(shared)}, which are trained on here, too")


def _recordings(names: Collection[str]) -> str:
    """Return the number of recordings and the first names of them, or the number of files of which only these are."""
    ordered = sorted((name for name in names if not name.startswith(CONTENT)), key=natural)
    if not ordered:
        return counted(len([*names]), "file")
    more = ", ..." if len(ordered) > SHOWN else ""
    return f"{counted(len(ordered), 'recording')} ({', '.join(ordered[:SHOWN])}{more})"
