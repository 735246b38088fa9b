"""Where on the spectrogram does a decision come from? Attributions of held-out clips: pictures, scores, sounds.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4). Attributions (Integrated Gradients from silence to the
clip, or another method) are computed for trained networks and, as a control, for the first network before its training,
which shows what the architecture alone gives. Scores turn the claims of the paper into numbers with chance levels.
Insertion, deletion and the randomisation of blocks test whether attributions follow the network; on the built-in clips,
ground-truth masks test whether they are on the event. In Python, ``tl.saliency(run, clips=4)`` draws four clips.
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from transferlens import cli
from transferlens.compare import question
from transferlens.data.catalogue import DataOptions
from transferlens.explain import listen
from transferlens.explain.class_maps import ChangeRow, ProfileRow, changes, profiles
from transferlens.explain.explanations import (
    Explained,
    ExplanationOptions,
    by_label,
    choose,
    explain,
    heldout_clips,
    networks,
)
from transferlens.explain.figures import draw, draw_classes, draw_summary, text
from transferlens.explain.scores import CascadeRow, Row, SummaryRow, cascade_rows, clip_rows, summary
from transferlens.measures.attribution import FEWEST
from transferlens.measures.methods import TABLE
from transferlens.models.device import pick_device
from transferlens.options import FigureOptions
from transferlens.store.heldout import heldout_audio
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import Fields, at_least
from transferlens.util.files import file_name
from transferlens.util.grouping import group_by
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory
from transferlens.util.text import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """Draw, score and check attributions: where on the spectrogram the decisions of trained networks come from."""

    ckpt: tuple[Path, ...]
    """Run files, one or more, with the same held-out clips. The first network before its training is the control."""
    clip: tuple[str, ...] = ()
    """Clips to draw, by id. Default: some that the first network gets wrong, and right ones of several classes."""
    rows: Annotated[int, at_least(1)] = 3
    """Number of clips to draw if none is named."""
    score: Literal["all", "drawn"] = "all"
    """Clips to score: all held-out clips, or only the clips that are drawn."""
    control_steps: Annotated[int, at_least(FEWEST)] = 32
    """Largest number of gradients per clip of the controls, networks before training or with randomised blocks; more
    if the method needs more."""
    listen: bool = False
    """Write the part of each drawn clip that a network used, and the part that it ignored, as wav files."""
    explanation: ExplanationOptions = ExplanationOptions()
    data: DataOptions = DataOptions()
    store: CacheOptions = CacheOptions()
    execution: DeviceOptions = DeviceOptions()
    output: FigureOptions = FigureOptions()


def _chosen(run: Run, options: Options) -> list[int]:
    """Return the indices of the clips to draw; raise if a clip or the target is not in the run."""
    if unknown := [clip for clip in options.clip if clip not in run.clip_ids]:
        raise ParameterError(
            f"clip={' '.join(unknown)} must be among the {len(run.clip_ids)} held-out clips of {run.path.name}, such "
            f"as {run.clip_ids[0]}"
        )
    target = options.explanation.target
    if target not in ("true", "predicted", *run.label_names):
        raise ParameterError(
            f"target={target!r} must be true, predicted, or a label of the run: {', '.join(run.label_names)}"
        )
    if options.clip:
        return [run.clip_ids.index(clip) for clip in dict.fromkeys(options.clip)]
    return choose(run, options.rows)


def _waveforms(run: Run, options: Options, ids: Sequence[str]) -> Sequence[np.ndarray | None]:
    """Return the clips' audio, or None per clip: only --listen and clips of different lengths need it."""
    if options.listen or run.config.features.seconds is None:
        try:
            return heldout_audio(run, options.data, ids)
        except TransferLensError as error:
            if options.listen:
                raise type(error)(f"listen needs the audio: {error}") from None
    return [None] * len(ids)


def _stem(words: str, used: set[str]) -> str:
    """Return a file name of these words that is not among those used, whatever the case, and add it to them."""
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in words)
    names = itertools.chain([plain], (f"{plain}-{i}" for i in itertools.count(2)))
    stem = next(name for name in map(file_name, names) if name.lower() not in used)
    used.add(stem.lower())
    return stem


@dataclass(frozen=True)
class Result(question.Result):
    """The scores of each clip and network, their means, and the checks by randomised blocks.

    `profiles` and `changes` are what networks use of each class, by mel band. `all_explained` and `explained` are
    the attributions of all scored clips and of the drawn ones, per network; `waveforms` is their audio if needed. With
    `listen`, `write` writes sounds too.
    """

    stem = "saliency"
    clip_rows: tuple[Row, ...]
    means: tuple[SummaryRow, ...]
    checks: tuple[CascadeRow, ...]
    profiles: tuple[ProfileRow, ...]
    changes: tuple[ChangeRow, ...]
    all_explained: tuple[Explained, ...]
    explained: tuple[Explained, ...]
    waveforms: Sequence[np.ndarray | None]
    how: ExplanationOptions
    listen: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """One row per clip and network."""
        return [row.flat for row in self.clip_rows]

    @property
    def title(self) -> str:
        """Backbone, data set and fold, for the figures."""
        config = self.explained[0].run.config
        return f"{config.backbone}, {config.dataset}, fold {config.fold}"

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return the scores per clip, their means, the checks, and what is used of each class and how it changes."""
        return {
            "saliency": self.rows,
            "saliency_summary": self.means,
            "saliency_cascade": self.checks,
            "saliency_classes": self.profiles,
            "saliency_changes": self.changes,
        }

    def figures(self) -> dict[str, Figure]:
        """Return the gallery of clips, the summary, and what is used of each class."""
        seconds = self.all_explained[0].clips.seconds
        return {
            "saliency": self.plot(),
            "saliency_summary": draw_summary(self.means, self.checks, title=self.title),
            "saliency_classes": draw_classes(self.all_explained, self.profiles, seconds=seconds, title=self.title),
        }

    def plot(self) -> Figure:
        """Draw every network's attribution over each drawn clip."""
        features = self.explained[0].run.config.features
        lengths = [None if y is None else len(y) / features.sr for y in self.waveforms]
        seconds = [features.seconds or length for length in lengths]
        return draw(self.explained, seconds=seconds, title=f"{self.title}: {self.how.title}")

    def summary(self) -> str:
        """Return means with intervals and chance levels, and how many clips did not reach a tolerance."""
        missed = [
            f"{words} above {100 * most:g} % ({counts})"
            for name, words, most in (
                ("completeness_error", "completeness error", self.how.tolerance),
                ("map_movement", "movement of the map", self.how.map_tolerance),
            )
            if (counts := self._above(name, most))
        ]
        if not missed or "tolerance" not in TABLE[self.how.method].takes:
            return text(self.means)
        remedy = "increase max_steps, or control_steps for the network before training"
        return f"{text(self.means)}\n{'; '.join(missed)}: {remedy}"

    def _above(self, name: str, most: float) -> str:
        """Return how many clips of each network have a value above the largest allowed, in words."""
        by_network = group_by(self.clip_rows, lambda row: row.network).items()
        counts = {network: sum(getattr(row, name) > most for row in rows) for network, rows in by_network}
        return ", ".join(f"{network}: {counted(n, 'clip')}" for network, n in counts.items() if n)

    def write(self, folder: Path | str, *, width: str | None = None, titles: bool = True) -> list[Path]:
        """Write tables, figures and, if they were asked for, sounds; return their paths."""
        written = super().write(folder, width=width, titles=titles)
        return [*written, *self._write_audio(written[0].parent / f"{self.stem}_audio")] if self.listen else written

    def _write_audio(self, folder: Path) -> list[Path]:
        """Write what each network used of each clip, and what it ignored; return the paths of the files."""
        paths, used = list[Path](), set[str]()
        for each in self.explained:
            for clip, y, cells in zip(each.clips.ids, self.waveforms, each.maps, strict=True):
                assert y is not None  # as --listen is given
                stem = _stem(f"{os.path.splitext(clip)[0]}-{each.name}", used)  # noqa: PTH122  # an id, not a path
                paths += listen.write(folder, stem, y, listen.mask(cells), each.run.config.features)
        return paths


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Compute and score attributions of held-out clips, for the networks of the runs that the options name."""
    device, how = pick_device(options.execution.device), options.explanation
    keep_freed_memory()
    trained = load_runs(options.ckpt, "labels", "held-out clips (fold)", "features")
    places = _chosen(trained[0], options)
    clips = heldout_clips(trained[0], options.data, options.store.cache, how)
    if how.target == "true":
        clips, places = by_label(trained[0], clips, places)
    waveforms = _waveforms(trained[0], options, clips.pick(places).ids)
    if options.score == "drawn":
        clips, places = clips.pick(places), list(range(len(places)))
    control = replace(how, max_steps=min(how.max_steps, max(options.control_steps, how.least_steps)))
    rows: list[Row] = []
    all_explained: list[Explained] = []
    with tqdm.tqdm(total=(1 + len(trained)) * len(clips.ids), unit="clip", desc="scores", disable=None) as bar:
        for name, run, network in networks(trained):
            is_control = len(all_explained) == len(trained)
            explanation = explain(name, run, network, clips, control if is_control else how, device)
            rows += clip_rows(explanation, how, bar.update)
            all_explained.append(explanation)
    explained = [explanation.pick(places) for explanation in all_explained]
    return Result(
        clip_rows=tuple(rows),
        means=tuple(summary(rows)),
        checks=tuple(cascade_rows(explained[0], control)),
        profiles=tuple(row for explanation in all_explained for row in profiles(explanation)),
        changes=tuple(changes(all_explained)),
        all_explained=tuple(all_explained),
        explained=tuple(explained),
        waveforms=waveforms,
        how=how,
        listen=options.listen,
    )


class _Saliency(question.Question[Options, Result]):
    """Accepts ``clips=4`` for `rows` and ``clips=["a.wav"]`` for `clip`."""

    def __call__(self, *first: Any, clips: Any = None, **options: Any) -> Result:
        named = {int: "rows", list: "clip", tuple: "clip"}.get(type(clips), "clips")
        if clips is not None and named in options:
            raise ParameterError(f"{named} is given twice, also as clips")
        if named == "rows" and clips < 1:
            raise ParameterError(f"clips={clips} must be at least 1, a table, or ids of clips")
        return super().__call__(*first, **options, **({} if clips is None else {named: clips}))


saliency = _Saliency("saliency", Options, analyse, first="ckpt", several=True)
main = cli.command("saliency", Options, saliency)

if __name__ == "__main__":
    sys.exit(main())
