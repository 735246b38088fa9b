"""What a network looks at: attributions of held-out clips, drawn, checked, scored, and to listen to.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4). Integrated Gradients (or another method) from silence
to the clip, for trained networks and, as the control that tells what structure alone gives, for the first of them
before its training. The paper's claims become numbers with chance levels; insertion and deletion, and the randomisation
of blocks, tell whether attributions follow the network; on the built-in set, whether they lie where the event is.
"""

from __future__ import annotations

import itertools
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
from transferlens.explain.explanations import Explained, ExplanationOptions, choose, explain, heldout_clips, networks
from transferlens.explain.figures import draw, draw_summary, text
from transferlens.explain.scores import CascadeRow, Row, SummaryRow, cascade_rows, clip_rows, summary
from transferlens.measures.attribution import FEWEST
from transferlens.models.device import pick_device
from transferlens.options import OutputOptions
from transferlens.store.heldout import heldout_audio
from transferlens.store.run import Run, load_runs
from transferlens.training.schedule import DeviceOptions
from transferlens.training.sweep import CacheOptions
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.fields import Fields, at_least
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Options(Fields):
    """What trained networks look at: attributions over held-out clips, with their scores and checks."""

    ckpt: tuple[Path, ...]
    """Run files, one or more, with the same held-out clips; the first one's start is the untrained control."""
    clip: tuple[str, ...] = ()
    """Clips to draw, by id. Default: a few that the first network gets wrong, and right ones of several classes."""
    rows: Annotated[int, at_least(1)] = 8
    """How many clips to draw where none is named."""
    score: Literal["all", "drawn"] = "all"
    """Clips that the numbers are over: all that were held out, or those drawn."""
    control_steps: Annotated[int, at_least(FEWEST)] = 32
    """Gradients of a clip, at most, where the network is a control: before training, or with randomised blocks. Their
    paths are rough, and their means over clips hardly move with more."""
    listen: bool = False
    """Write what each network used of the drawn clips, and what it ignored, as wav files; needs the audio."""
    explanation: ExplanationOptions = ExplanationOptions()
    data: DataOptions = DataOptions()
    store: CacheOptions = CacheOptions()
    execution: DeviceOptions = DeviceOptions()
    output: OutputOptions = OutputOptions()


# ------------------------------------------------------------------------------------------------- command


def _check(options: Options, runs: Sequence[Run]) -> list[int]:
    """Refuse what cannot be done; the places of the clips to draw."""
    run = runs[0]
    if unknown := [clip for clip in options.clip if clip not in run.clip_ids]:
        raise ParameterError(
            f"clip={' '.join(unknown)} is not among the {len(run.clip_ids)} clips that {run.path.name} held out, "
            f"as {run.clip_ids[0]} is"
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
    """The clips' audio at the features' rate; None, where nobody needs it, or only lengths, and it is not to be had."""
    if not options.listen and run.config.features.seconds is not None:
        return [None] * len(ids)
    try:
        return heldout_audio(run, options.data, ids)
    except TransferLensError as error:
        if options.listen:
            raise type(error)(f"--listen needs the audio: {error}") from None
        return [None] * len(ids)


def _write_audio(explained: Sequence[Explained], waveforms: Sequence[np.ndarray], folder: Path) -> int:
    n, used = 0, set[str]()
    for found in explained:
        settings = found.run.config.features
        for clip, y, cells in zip(found.clips.ids, waveforms, found.cells, strict=True):
            stem = _stem(f"{Path(clip).with_suffix('')}-{found.name}", used)
            n += len(listen.write(folder, stem, y, listen.mask(cells), settings))
    return n


def _stem(words: str, used: set[str]) -> str:
    """A file name of its own, folders of the clip's id and all; added to those used, for which case does not count."""
    plain = "".join(c if c.isalnum() or c in "-." else "_" for c in words)
    names = itertools.chain([plain], (f"{plain}-{i}" for i in itertools.count(2)))
    stem = next(name for name in names if name.lower() not in used)
    used.add(stem.lower())
    return stem


@dataclass(frozen=True)
class Result(question.Result):
    """Scores of every clip and network, their means, the checks by randomised blocks, and the drawn clips.

    Attributes
    ----------
    clip_rows : tuple of Row
    means : tuple of SummaryRow
    checks : tuple of CascadeRow
    explained : tuple of Explained
        Each network's attributions of the drawn clips.
    waveforms : sequence of ndarray or None
        Audio of the drawn clips, where it is needed.
    method : str
    listen : bool
        Whether sounds are written too.
    """

    stem = "saliency"
    clip_rows: tuple[Row, ...]
    means: tuple[SummaryRow, ...]
    checks: tuple[CascadeRow, ...]
    explained: tuple[Explained, ...]
    waveforms: Sequence[np.ndarray | None]
    method: str
    listen: bool = False

    @property
    def rows(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """One row per clip and network, with all scores."""
        return [row.flat for row in self.clip_rows]

    @property
    def title(self) -> str:
        """Backbone, data set and fold."""
        config = self.explained[0].run.config
        return f"{config.backbone}, {config.dataset}, fold {config.fold}"

    def tables(self) -> dict[str, Sequence[Any]]:
        """Return scores by clip, their means, and the checks."""
        return {"saliency": self.rows, "saliency_summary": self.means, "saliency_cascade": self.checks}

    def figures(self) -> dict[str, Figure]:
        """Return the gallery of clips, and the summary."""
        return {"saliency": self.plot(), "saliency_summary": draw_summary(self.means, self.checks, title=self.title)}

    def plot(self) -> Figure:
        """Draw every network's attribution over each drawn clip."""
        features = self.explained[0].run.config.features
        lengths = [None if y is None else len(y) / features.sr for y in self.waveforms]
        seconds = [features.seconds or length for length in lengths]
        return draw(self.explained, seconds=seconds, title=f"{self.title}: {self.method}")

    def summary(self) -> str:
        """Return means with intervals and chance levels."""
        return text(self.means)

    def write(self, folder: Path | str) -> list[str]:
        """Write tables, figures and, where it was asked for, sounds."""
        written = super().write(folder)
        if self.listen:
            sounds = Path(folder) / f"{self.stem}_audio"
            n = _write_audio(self.explained, [y for y in self.waveforms if y is not None], sounds)
            written.append(f"{n} wav files in {sounds}")
        return written


def analyse(runs: Mapping[str, Sequence[Run]], options: Options) -> Result:
    """Explain and score held-out clips with the networks of the runs that the options name."""
    device, how = pick_device(options.execution.device), options.explanation
    keep_freed_memory()
    trained = load_runs(options.ckpt, "labels", "held-out clips (fold)", "features")
    places = _check(options, trained)
    clips = heldout_clips(trained[0], options.data, options.store.cache)
    waveforms = _waveforms(trained[0], options, clips.pick(places).ids)
    if options.score == "drawn":
        clips, places = clips.pick(places), list(range(len(places)))
    control = replace(how, max_steps=min(how.max_steps, options.control_steps))
    rows: list[Row] = []
    explained: list[Explained] = []
    with tqdm.tqdm(total=(1 + len(trained)) * len(clips.ids), unit="clip", desc="scores", disable=None) as bar:
        for name, run, network in networks(trained):
            is_control = len(explained) == len(trained)
            found = explain(name, run, network, clips, control if is_control else how, device)
            rows += clip_rows(found, how, bar.update)
            explained.append(found.pick(places))
    return Result(
        clip_rows=tuple(rows),
        means=tuple(summary(rows)),
        checks=tuple(cascade_rows(explained[0], control)),
        explained=tuple(explained),
        waveforms=waveforms,
        method=f"{how.method} from {how.baseline}",
        listen=options.listen,
    )


class _Saliency(question.Question[Options, Result]):
    """Takes ``clips=4`` for four clips to draw, and ``clips=["a.wav"]`` for these, as one would say."""

    def __call__(self, *first: Any, clips: Any = None, **options: Any) -> Result:
        named = {int: "rows", list: "clip", tuple: "clip"}.get(type(clips), "clips")
        return super().__call__(*first, **options, **({} if clips is None else {named: clips}))


saliency = _Saliency("saliency", Options, analyse, first="ckpt")
main = cli.command("saliency", Options, saliency)

if __name__ == "__main__":
    sys.exit(main())
