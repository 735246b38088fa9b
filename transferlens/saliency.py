"""What a network looks at: attributions of held-out clips, drawn, checked, scored, and to listen to.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4). Integrated Gradients (or another method) from silence
to the clip, for trained networks and, as the control that tells what structure alone gives, for the first of them
before its training. The paper's claims become numbers with chance levels; insertion and deletion, and the randomisation
of blocks, tell whether attributions follow the network; on the built-in set, whether they lie where the event is.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from transferlens import cli
from transferlens.data.catalogue import DataOptions
from transferlens.explain import listen
from transferlens.explain.explanations import Explained, ExplanationOptions, choose, explain, heldout_clips, networks
from transferlens.explain.figures import draw, draw_summary, text
from transferlens.explain.scores import CascadeRow, Row, cascade_rows, clip_rows, summary
from transferlens.measures.attribution import FEWEST, attribute, check_options
from transferlens.models.device import pick_device
from transferlens.plots import style
from transferlens.store.heldout import heldout_audio
from transferlens.store.run import Run, load_runs
from transferlens.util.errors import ParameterError, TransferLensError
from transferlens.util.files import check_writable, write_csv
from transferlens.util.lazy import tqdm
from transferlens.util.processes import keep_freed_memory

__all__ = ["Options", "attribute", "main"]

STEM = "saliency"


@dataclass(frozen=True, kw_only=True)
class Options(ExplanationOptions, DataOptions):
    """What trained networks look at: attributions over held-out clips, with their scores and checks."""

    ckpt: tuple[Path, ...]
    """Run files, one or more, with the same held-out clips; the first one's start is the untrained control."""
    clip: tuple[str, ...] = ()
    """Clips to draw, by id. Default: a few that the first network gets wrong, and right ones of several classes."""
    rows: int = 8
    """How many clips to draw where none is named."""
    score: Literal["all", "drawn"] = "all"
    """Clips that the numbers are over: all that were held out, or those drawn."""
    control_steps: int = 32
    """Gradients of a clip, at most, where the network is a control: before training, or with randomised blocks. Their
    paths are rough, and their means over clips hardly move with more."""
    listen: bool = False
    """Write what each network used of the drawn clips, and what it ignored, as wav files; needs the audio."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""
    figures: Path = Path("figures")
    """Folder for saliency.png, .pdf and .csv, saliency_summary.*, saliency_cascade.csv and saliency_audio/."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device."""


# ------------------------------------------------------------------------------------------------- command


def _check(options: Options, runs: Sequence[Run]) -> list[int]:
    """Refuse what cannot be done; the places of the clips to draw."""
    run = runs[0]
    if unknown := [clip for clip in options.clip if clip not in run.clip_ids]:
        raise ParameterError(
            f"clip={' '.join(unknown)} is not among the {len(run.clip_ids)} clips that {run.path.name} held out, "
            f"as {run.clip_ids[0]} is"
        )
    if options.target not in ("true", "predicted", *run.label_names):
        raise ParameterError(
            f"target={options.target!r} must be true, predicted, or a label of the run: {', '.join(run.label_names)}"
        )
    if options.clip:
        return [run.clip_ids.index(clip) for clip in dict.fromkeys(options.clip)]
    return choose(run, options.rows)


def _check_options(options: Options) -> None:
    check_options(tolerance=options.tolerance, max_steps=options.max_steps)
    if options.control_steps < FEWEST:
        raise ParameterError(f"control_steps={options.control_steps} must be at least {FEWEST}")
    if options.rows < 1:
        raise ParameterError(f"rows={options.rows} must be at least 1")
    if options.block is not None and options.method != "gradcam":
        raise ParameterError(f"block={options.block} goes with --method gradcam alone")
    check_writable("figures", options.figures)


def _waveforms(run: Run, options: Options, ids: Sequence[str]) -> Sequence[np.ndarray | None]:
    """The clips' audio at the features' rate; None, where nobody needs it, or only lengths, and it is not to be had."""
    if not options.listen and run.config.features.seconds is not None:
        return [None] * len(ids)
    try:
        return heldout_audio(run, options, ids)
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


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the runs, explain, score, write, draw."""
    options = cli.parse(Options, argv, prog="saliency")
    _check_options(options)
    device = pick_device(options.device)
    keep_freed_memory()
    runs = load_runs(options.ckpt, "labels", "held-out clips (fold)", "features")
    places = _check(options, runs)
    clips = heldout_clips(runs[0], options, options.cache)
    waveforms = _waveforms(runs[0], options, clips.pick(places).ids)
    if options.score == "drawn":
        clips, places = clips.pick(places), list(range(len(places)))
    rows = []
    explained: list[Explained] = []
    bar = tqdm.tqdm(total=(1 + len(runs)) * len(clips.ids), unit="clip", desc="scores", disable=None)
    control = replace(options, max_steps=min(options.max_steps, options.control_steps))
    for name, run, network in networks(runs):
        found = explain(name, run, network, clips, control if len(explained) == len(runs) else options, device)
        rows += clip_rows(found, options, bar.update)
        explained.append(found.pick(places))
    bar.close()
    checks = cascade_rows(explained[0], control)
    _write(options, runs[0], rows, checks, explained, waveforms)
    return cli.DONE


def _write(
    options: Options,
    run: Run,
    rows: Sequence[Row],
    checks: Sequence[CascadeRow],
    explained: Sequence[Explained],
    waveforms: Sequence[np.ndarray | None],
) -> None:
    config, stem = run.config, options.figures / STEM
    title = f"{config.backbone}, {config.dataset}, fold {config.fold}"
    lengths = [None if y is None else len(y) / config.features.sr for y in waveforms]
    seconds = [config.features.seconds or length for length in lengths]
    table = summary(rows)
    write_csv([row.flat for row in rows], stem.with_suffix(".csv"))
    write_csv(table, options.figures / f"{STEM}_summary.csv")
    write_csv(checks, options.figures / f"{STEM}_cascade.csv")
    about = f"{title}: {options.method} from {options.baseline}"
    style.save_figure(draw(explained, seconds=seconds, title=about), stem)
    style.save_figure(draw_summary(table, checks, title=title), options.figures / f"{STEM}_summary")
    print(text(table))
    print(f"written: {stem}.png, .pdf, .csv, {stem}_summary.png, .pdf, .csv, {stem}_cascade.csv")
    if options.listen:
        folder = options.figures / f"{STEM}_audio"
        n = _write_audio(explained, [y for y in waveforms if y is not None], folder)
        print(f"written: {n} wav files in {folder}")


if __name__ == "__main__":
    sys.exit(main())
