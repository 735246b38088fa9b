"""What a network looks at: attributions of held-out clips, drawn, checked, scored, and to listen to.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4). Integrated Gradients (or another method) from silence
to the clip, for trained networks and, as the control that tells what structure alone gives, for the first of them
before its training. The paper's claims become numbers with chance levels; insertion and deletion, and the randomisation
of blocks, tell whether attributions follow the network; on the built-in set, whether they lie where the event is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from transferlens import backbones, cli, display, lazy, listen, saliency_figures, stats, synth
from transferlens.attribution import Attribution, attribute
from transferlens.attribution_scores import area, cascade, claims, curve, known_answer, rank_correlation, shifted
from transferlens.datasets import BUILT_IN, DataOptions, DataSet
from transferlens.errors import DataError, ParameterError
from transferlens.files import check_writable, write_csv
from transferlens.inputs import heldout_features
from transferlens.runs import Run, arm_names, check_alike, load_run
from transferlens.trainer import keep_freed_memory, pick_device

if TYPE_CHECKING:
    from transferlens.network import Network

torch = lazy.load("torch")
tqdm = lazy.load("tqdm")

__all__ = ["Clips", "Explained", "Options", "Row", "attribute", "baseline_of", "explain", "main"]

STEM = "saliency"
BEFORE = "before training"
BASELINES = ("silence", "zeros", "mean")
# Seed of the random order, and of the weights that randomised blocks get.
SEED = 0
# What a score can be at least and at most.
BOUNDS = {"energy_correlation": (-1.0, 1.0), "edge_correlation": (-1.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class Options(DataOptions):
    """What trained networks look at: attributions over held-out clips, with their scores and checks."""

    ckpt: tuple[Path, ...]
    """Run files, one or more, with the same held-out clips; the first one's start is the untrained control."""
    clip: tuple[str, ...] = ()
    """Clips to draw, by id. Default: a few that the first network gets wrong, and right ones of several classes."""
    rows: int = 8
    """How many clips to draw where none is named."""
    score: Literal["all", "drawn"] = "all"
    """Clips that the numbers are over: all that were held out, or those drawn."""
    target: str = "true"
    """The class whose logit is explained: true, predicted, or a label."""
    method: Literal["ig", "smoothgrad", "gradcam", "occlusion"] = "ig"
    """Integrated Gradients, SmoothGrad, Grad-CAM or occlusion."""
    block: int | None = None
    """For gradcam: the block that is looked at. Default: the last."""
    baseline: Literal["silence", "zeros", "mean"] = "silence"
    """Where Integrated Gradients start, and what hides cells: a silent clip's features, the network's zero (with
    normalisation the training clips' mean), or the held-out clips' mean."""
    tolerance: float = 0.01
    """Completeness error up to which Integrated Gradients add steps."""
    max_steps: int = 256
    """Gradients of a clip after which they stop all the same; what was reached is in the figure and the table."""
    listen: bool = False
    """Write what each network used of the drawn clips, and what it ignored, as wav files; needs the audio."""
    cache: Path = Path("cache")
    """Folder of the feature caches."""
    figures: Path = Path("figures")
    """Folder for saliency.png, .pdf and .csv, saliency_summary.*, saliency_cascade.csv and saliency_audio/."""
    device: str = "auto"
    """auto (cuda, mps, cpu: the first there is), or torch's name of a device."""


# -------------------------------------------------------------------------------------------------- clips


@dataclass(frozen=True)
class Clips:
    """The held-out clips that are explained.

    Attributes
    ----------
    ids, labels : tuple of str [shape=(n,)]
    S : ndarray [shape=(n, channels, n_mels, width), float32]
        Log-mel features.
    silent : ndarray [shape=(channels, n_mels, width), float32]
        Those of a silent clip.
    masks : ndarray of bool [shape as S], or None
        Where the event is, which is known of the built-in set alone.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    S: np.ndarray
    silent: np.ndarray
    masks: np.ndarray | None

    @property
    def energy(self) -> np.ndarray:
        """Log-mel power, mean over channels [shape=(n, n_mels, width)]."""
        return self.S.mean(1)

    def pick(self, places: Sequence[int]) -> Clips:
        """Some of them."""
        masks = None if self.masks is None else self.masks[places]
        ids, labels = (tuple(each[i] for i in places) for each in (self.ids, self.labels))
        return Clips(ids, labels, self.S[places], self.silent, masks)


def heldout_clips(run: Run, options: Options) -> Clips:
    """The clips that a run held out."""
    settings = run.config.features
    masks = None
    if run.config.dataset == BUILT_IN:
        keep = ("sr", "n_fft", "windows", "hops", "n_mels", "width")
        chosen = {name: getattr(settings, name) for name in keep}
        masks = np.stack([synth.event_mask(clip, **chosen) for clip in run.clip_ids])
    return Clips(
        ids=run.clip_ids,
        labels=tuple(run.label_names[label] for label in run.labels),
        S=heldout_features(run, options, options.cache),
        silent=settings.compute(np.zeros(settings.n_fft, np.float32)),
        masks=masks,
    )


def baseline_of(run: Run, clips: Clips, name: str = "silence") -> torch.Tensor:
    """What "nothing" is, as the network of a run takes it [shape=(channels, n_mels, width)].

    Parameters
    ----------
    run : Run
    clips : Clips
    name : "silence", "zeros" or "mean"
    """
    if name == "zeros":
        return torch.zeros(clips.silent.shape)
    return run.inputs((clips.silent if name == "silence" else clips.S.mean(0))[None])[0]


def choose(run: Run, rows: int) -> list[int]:
    """Clips to draw: up to half wrong ones, the surest first; then the right one of median surety of each class.

    Returns
    -------
    places : list of int
        Among the run's held-out clips.
    """
    logits = run.logits - run.logits.max(1, keepdims=True)
    sure = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    right = run.logits.argmax(1) == run.labels
    wrong = sorted(np.flatnonzero(~right), key=lambda i: -sure[i])[: rows // 2]
    chosen = [int(i) for i in wrong]
    missing = sorted(set(run.labels.tolist()), key=lambda label: label in run.labels[chosen])
    for label in missing:
        of_class = sorted(np.flatnonzero(right & (run.labels == label)), key=lambda i: sure[i])
        if of_class and len(chosen) < rows:
            chosen.append(int(of_class[len(of_class) // 2]))
    return sorted(chosen, key=lambda i: (bool(right[i]), run.labels[i]))


# --------------------------------------------------------------------------------------------- explanations


@dataclass(frozen=True)
class Explained:
    """Attributions of one network.

    Attributes
    ----------
    name : str
    run : Run
        Where it, or its start, comes from.
    network : Network
    clips : Clips
    x : torch.Tensor [shape=(n, channels, n_mels, width)]
        The clips as it takes them.
    baseline : torch.Tensor [shape=(channels, n_mels, width)]
    targets, predicted : list of int [shape=(n,)]
        Classes.
    probabilities : ndarray [shape=(n,)]
        Of the targets.
    attribution : Attribution
    """

    name: str
    run: Run
    network: Network
    clips: Clips
    x: torch.Tensor
    baseline: torch.Tensor
    targets: list[int]
    predicted: list[int]
    probabilities: np.ndarray
    attribution: Attribution

    @property
    def cells(self) -> np.ndarray:
        """Attributions summed over channels [shape=(n, n_mels, width)]."""
        return self.attribution.values.sum(1)


def networks(runs: Sequence[Run]) -> list[tuple[str, Run, Network]]:
    """The runs' trained networks by name, and the first one before its training."""
    names = arm_names(runs)
    if len(set(names)) < len(names):
        names = [f"{name}, seed {run.config.seed}" for name, run in zip(names, runs, strict=True)]
    found = [(name, run, run.model()) for name, run in zip(names, runs, strict=True)]
    start = runs[0].model()
    start.load_state_dict(runs[0].initial_state())
    return [*found, (f"{names[0]}, {BEFORE}" if len(runs) > 1 else BEFORE, runs[0], start)]


def explain(name: str, run: Run, network: Network, clips: Clips, options: Options, device: Any) -> Explained:
    """Attributions of one network for clips."""
    network.to(device).eval()
    x, baseline = run.inputs(clips.S).to(device), baseline_of(run, clips, options.baseline).to(device)
    with torch.no_grad():
        logits = torch.cat([network(part) for part in x.split(8)]).double().cpu()
    predicted = logits.argmax(1).tolist()
    targets = {
        "true": [run.label_names.index(label) for label in clips.labels],
        "predicted": predicted,
    }.get(options.target) or [run.label_names.index(options.target)] * len(x)
    return Explained(
        name=name,
        run=run,
        network=network,
        clips=clips,
        x=x,
        baseline=baseline,
        targets=targets,
        predicted=predicted,
        probabilities=logits.softmax(1)[range(len(x)), targets].numpy(),
        attribution=attribute(
            network,
            x,
            targets=targets,
            baseline=baseline,
            method=options.method,
            tolerance=options.tolerance,
            max_steps=options.max_steps,
            block=options.block,
            progress=True,
        ),
    )


def faithfulness(found: Explained, i: int) -> dict[str, float]:
    """Areas under the insertion and deletion curves of one clip, cells in the order of attribution, energy, chance."""
    rng = np.random.default_rng([SEED, i])
    cells = found.cells[i]
    orders = {"": cells, "_energy": found.clips.energy[i], "_random": rng.permutation(cells.size).reshape(cells.shape)}
    return {
        f"{way}{name}": area(
            curve(
                found.network,
                found.x[i],
                baseline=found.baseline,
                target=found.targets[i],
                order=order,
                insert=way == "insertion",
            )
        )
        for way in ("insertion", "deletion")
        for name, order in orders.items()
    }


def scores(found: Explained, i: int) -> dict[str, float]:
    """All scores of one clip."""
    values = claims(found.cells[i], found.clips.energy[i]) | faithfulness(found, i)
    if found.clips.masks is not None:
        power = np.maximum(found.clips.S[i] - found.clips.silent, 0)
        values |= known_answer(found.attribution.values[i], found.clips.masks[i], power)
    return values


# -------------------------------------------------------------------------------------------------- tables


@dataclass(frozen=True)
class Row:
    """One network and one clip in the CSV; all scores follow, those with "_chance" of attributions shifted in time."""

    network: str
    run: str
    clip: str
    label: str
    subset: str
    target: str
    target_probability: float
    predicted: str
    method: str
    baseline: str
    steps: int
    change: float
    completeness_error: float


@dataclass(frozen=True)
class SummaryRow:
    """Mean of one score over clips, with a 95 % interval (Student's t over clips)."""

    network: str
    subset: str
    score: str
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class CascadeRow:
    """Rank correlation of one clip's attributions with those of the network randomised from the top.

    Of their magnitudes, of signed values, and by chance: of magnitudes shifted in time.
    """

    network: str
    clip: str
    randomised_through: str
    magnitude: float
    signed: float
    chance: float


def subset_of(clip: str, run: Run) -> str:
    """Which kind of clip: of the built-in set, with or without the louder distractor."""
    if run.config.dataset != BUILT_IN:
        return "all"
    return "with distractor" if synth.spec(clip).has_distractor else "without distractor"


def rows_of(found: Explained, options: Options, bar: Callable[[int], Any]) -> list[Any]:
    """A row a clip: the fields of `Row`, and a field a score."""
    labels = found.run.label_names
    rows = []
    for i, clip in enumerate(found.clips.ids):
        row = Row(
            network=found.name,
            run=found.run.config.id,
            clip=clip,
            label=found.clips.labels[i],
            subset=subset_of(clip, found.run),
            target=labels[found.targets[i]],
            target_probability=float(found.probabilities[i]),
            predicted=labels[found.predicted[i]],
            method=options.method,
            baseline=options.baseline,
            steps=int(found.attribution.steps[i]),
            change=float(found.attribution.change[i]),
            completeness_error=float(found.attribution.error[i]),
        )
        values = scores(found, i)
        whole = make_dataclass("ScoredRow", [*((f.name, f.type) for f in fields(Row)), *((n, float) for n in values)])
        rows.append(whole(**asdict(row), **values))
        bar(1)
    return rows


def summary(rows: Sequence[Any]) -> list[SummaryRow]:
    """Means over clips of every score, of all clips and of each subset."""
    found = []
    names = [field.name for field in fields(rows[0])][len(fields(Row)) :]
    for network in dict.fromkeys(row.network for row in rows):
        mine = [row for row in rows if row.network == network]
        subsets = {"all": mine} | {kind: [row for row in mine if row.subset == kind] for kind in _subsets(mine)}
        for kind, group in subsets.items():
            for name in names:
                bounds = BOUNDS.get(name.removesuffix("_chance"), (0.0, 1.0))
                interval = stats.mean_interval([getattr(row, name) for row in group], bounds=bounds)
                found.append(SummaryRow(network, kind, name, interval.mean, interval.low, interval.high, interval.n))
    return found


def _subsets(rows: Iterable[Row]) -> list[str]:
    return sorted({row.subset for row in rows} - {"all"})


def randomised(found: Explained, options: Options, device: Any) -> list[CascadeRow]:
    """The cascading randomisation of one network (Adebayo et al. 2018), over its clips."""
    config = found.run.config
    fresh = backbones.skeleton(config.backbone, n_classes=len(found.run.label_names), plan=config.plan, seed=SEED + 1)
    rows = []
    for through, network in cascade(found.network, fresh.to(device)):
        others = explain(found.name, found.run, network, found.clips, options, device).cells
        for clip, cells, other in zip(found.clips.ids, found.cells, others, strict=True):
            rows.append(
                CascadeRow(
                    network=found.name,
                    clip=clip,
                    randomised_through=through,
                    magnitude=rank_correlation(np.abs(other), np.abs(cells)),
                    signed=rank_correlation(other, cells),
                    chance=shifted(lambda values, cells=cells: rank_correlation(values, np.abs(cells)), np.abs(other)),
                )
            )
    return rows


# ------------------------------------------------------------------------------------------------- command


def _check(options: Options, runs: Sequence[Run]) -> list[int]:
    """Refuse what cannot be done; the places of the clips to draw."""
    check_alike(runs, "labels", "held-out clips (fold)", "features")
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
    if not options.ckpt:
        raise ParameterError("ckpt must name at least one run file, as `python -m transferlens.runs` lists them")
    if not 0 < options.tolerance < 1:
        raise ParameterError(f"tolerance={options.tolerance} must lie between 0 and 1: the completeness error allowed")
    for name in ("max_steps", "rows"):
        if getattr(options, name) < 1:
            raise ParameterError(f"{name}={getattr(options, name)} must be at least 1")
    if options.block is not None and options.method != "gradcam":
        raise ParameterError(f"block={options.block} goes with --method gradcam alone")
    check_writable("figures", options.figures)


def _audio(run: Run, options: Options) -> DataSet | None:
    """The data set that the run's clips are of, where it is to be had."""
    try:
        dataset = options.open()
    except (DataError, ParameterError):
        return None
    return dataset if set(run.clip_ids) <= {clip.id for clip in dataset.clips} else None


def _waveforms(run: Run, options: Options, ids: Sequence[str]) -> list[np.ndarray | None]:
    """The clips' audio at the features' rate, None where it is gone."""
    dataset = _audio(run, options)
    if dataset is None:
        return [None] * len(ids)
    by_id = {clip.id: clip for clip in dataset.clips}
    found = []
    for clip in ids:
        try:
            found.append(dataset.load(by_id[clip]))
        except DataError:
            found.append(None)
    return found


def _write_audio(explained: Sequence[Explained], waveforms: Sequence[np.ndarray], folder: Path) -> int:
    n = 0
    for found in explained:
        settings = found.run.config.features
        for clip, y, cells in zip(found.clips.ids, waveforms, found.cells, strict=True):
            stem = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{Path(clip).stem}-{found.name}")
            n += len(listen.write(folder, stem, y, listen.mask(cells), settings))
    return n


@cli.command
def main(argv: Sequence[str] | None = None) -> int:
    """Parse, read the runs, explain, score, write, draw."""
    options = cli.parse(Options, argv, prog="saliency")
    _check_options(options)
    device = pick_device(options.device)
    keep_freed_memory()
    runs = list({run.config.id: run for run in map(load_run, options.ckpt)}.values())
    places = _check(options, runs)
    clips = heldout_clips(runs[0], options)
    drawn = clips.pick(places)
    waveforms = _waveforms(runs[0], options, drawn.ids)
    if options.listen and (gone := [c for c, y in zip(drawn.ids, waveforms, strict=True) if y is None]):
        raise DataError(
            f"listening needs the audio, and that of {', '.join(gone)} is not to be had: name the clips (--clips, or "
            "--dataset and --root), or leave out --listen"
        )
    scored = clips if options.score == "all" else drawn
    rows, explained = [], []
    bar = tqdm.tqdm(total=(1 + len(runs)) * len(scored.ids), unit="clip", desc="scores", disable=None)
    for name, run, network in networks(runs):
        found = explain(name, run, network, scored, options, device)
        rows += rows_of(found, options, bar.update)
        explained.append(_some(found, drawn))
    bar.close()
    checks = randomised(explained[0], options, device)
    _write(options, runs[0], rows, checks, explained, waveforms)
    return cli.DONE


def _some(found: Explained, drawn: Clips) -> Explained:
    """Of those explained, the clips that are drawn."""
    places = [found.clips.ids.index(clip) for clip in drawn.ids]
    attribution = Attribution(**{f.name: getattr(found.attribution, f.name)[places] for f in fields(Attribution)})
    return Explained(
        name=found.name,
        run=found.run,
        network=found.network,
        clips=drawn,
        x=found.x[places],
        baseline=found.baseline,
        targets=[found.targets[i] for i in places],
        predicted=[found.predicted[i] for i in places],
        probabilities=found.probabilities[places],
        attribution=attribution,
    )


def _write(
    options: Options,
    run: Run,
    rows: Sequence[Any],
    checks: Sequence[CascadeRow],
    explained: Sequence[Explained],
    waveforms: Sequence[np.ndarray | None],
) -> None:
    config, stem = run.config, options.figures / STEM
    title = f"{config.backbone}, {config.dataset}, fold {config.fold}"
    lengths = [None if y is None else len(y) / config.features.sr for y in waveforms]
    seconds = [config.features.seconds or length for length in lengths]
    table = summary(rows)
    write_csv(rows, stem.with_suffix(".csv"))
    write_csv(table, options.figures / f"{STEM}_summary.csv")
    write_csv(checks, options.figures / f"{STEM}_cascade.csv")
    about = f"{title}: {options.method} from {options.baseline}"
    display.save_figure(saliency_figures.draw(explained, seconds=seconds, title=about), stem)
    display.save_figure(saliency_figures.draw_summary(table, checks, title=title), options.figures / f"{STEM}_summary")
    print(saliency_figures.text(table))
    print(f"written: {stem}.png, .pdf, .csv, {stem}_summary.png, .pdf, .csv, {stem}_cascade.csv")
    if options.listen:
        n = _write_audio(explained, waveforms, options.figures / f"{STEM}_audio")
        print(f"written: {n} wav files in {options.figures / f'{STEM}_audio'}")


if __name__ == "__main__":
    sys.exit(main())
