"""A finished run as files that other libraries load: timm, onnxruntime, torch alone.

* `write`: a folder with the files of some formats, each checked against the run's network, and a model card
* `timm_model`: the run as a model of timm, where timm builds one with the same logits

Logits are computed in float32, whatever the precision of training.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from transferlens.measures import multilabel, stats
from transferlens.measures.classes import UNEVEN
from transferlens.measures.scoring import ONE
from transferlens.store.run import Run
from transferlens.util import lazy
from transferlens.util.errors import ParameterError
from transferlens.util.files import check_folder, check_writable, complete_or_absent
from transferlens.util.lazy import jinja2, timm, torch, tqdm
from transferlens.util.text import markdown, some

frontend = lazy.load("transferlens.features.frontend")
anatomy = lazy.load("transferlens.models.anatomy")

Format = Literal["timm", "onnx", "pt2"]
FORMATS: tuple[str, ...] = get_args(Format)
# Largest difference of logits that a file may have, relative to the largest logit if that exceeds 1.
TOLERANCE = {"timm": 1e-5, "onnx": 1e-4, "pt2": 1e-4}
_PACKAGES = {"onnx": ("onnx", "onnxscript", "onnxruntime")}
_SECONDS = 2.0  # of the clips that files are checked with


class Unavailable(Exception):
    """The reason why a format is not available for a run."""


@dataclass(frozen=True)
class File:
    """A file, by its format, and the largest difference of its logits from those of the run's network."""

    format: str
    name: str
    difference: float


@dataclass(frozen=True)
class Exported:
    """What was written to a folder, and why formats were left out."""

    folder: Path
    files: tuple[File, ...]
    left_out: dict[str, str]


@dataclass(frozen=True, eq=False)
class _Case:
    """A run and its network, with what files are checked with.

    These are two waveforms, their features, the input of the network [shape=(2, ...) each], and its logits.
    """

    run: Run
    net: Any
    y: torch.Tensor
    S: torch.Tensor
    x: torch.Tensor
    logits: np.ndarray
    _programs: dict[tuple[str, bool], Any] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> _Case:
        """Return the case of a run: its waveforms are a tone and noise, as long as the front end needs."""
        net = run.model()
        settings, rng = run.config.features, np.random.default_rng(0)
        assert settings.n_fft is not None
        n = max(round(_SECONDS * settings.sr), settings.n_fft + 1)
        tone = np.sin(2 * np.pi * 440 / settings.sr * np.arange(n))
        y = (0.1 * np.stack([tone, rng.normal(size=n)])).astype(np.float32)
        S = torch.from_numpy(np.stack([settings.compute(each, settings.sr) for each in y]))
        x = run.inputs(S)
        with torch.no_grad():
            return cls(run, net, torch.from_numpy(y), S, x, net(x).numpy())

    def difference(self, what: str, format: str, logits: np.ndarray) -> float:
        """Return the largest difference of logits; raise `Unavailable` if it is larger than rounding explains."""
        if logits.shape != self.logits.shape:
            raise Unavailable(f"{what} returns outputs of shape {logits.shape}, not {self.logits.shape}")
        difference = float(np.abs(logits - self.logits).max())
        if not difference <= TOLERANCE[format] * max(1, np.abs(self.logits).max()):
            raise Unavailable(f"the logits of {what} differ by {difference:.2g} from those of the run")
        return difference

    def input(self, source: str) -> torch.Tensor:
        """Return the waveforms or the features."""
        return self.y if source == "waveform" else self.S

    def program(self, source: str, products: bool = False) -> Any:
        """Return the exported program of the network with all that is before it, from features or from waveforms.

        It takes any number of clips, and waveforms of any length. For `products` see `frontend.FrontEnd`.
        """
        if (source, products) in self._programs:
            return self._programs[source, products]
        settings, axes = self.run.config.features, {0: torch.export.Dim("batch")}
        parts = [frontend.Normalise(self.run.normalisation), self.net]
        if source == "waveform":
            axes[1] = torch.export.Dim("n_samples", min=max(2, settings.n_fft or 0))
            parts.insert(0, frontend.FrontEnd(settings, products=products))
        with torch.no_grad():
            module = torch.nn.Sequential(*parts).eval()
            program = torch.export.export(module, (self.input(source),), dynamic_shapes=(axes,))
        return self._programs.setdefault((source, products), program)


# ------------------------------------------------------------------------------------------------------------ timm


def timm_model(run: Run) -> torch.nn.Module:
    """Return timm's model with the weights of a run and the same logits, in evaluation mode.

    Raises
    ------
    ParameterError
        If timm does not build one: the network is cut, or timm's own head has other layers than a linear one.
    """
    try:
        return _timm_model(_Case.of(run))
    except Unavailable as why:
        raise ParameterError(f"{run.path} cannot be a model of timm: {why}") from None


def _timm_model(case: _Case) -> torch.nn.Module:
    """Return timm's model, built with the first arguments that give the same logits."""
    run = case.run
    name, cut = run.config.backbone, run.config.plan.truncate_after
    if cut < 4:
        raise Unavailable(f"the network is cut after Block {cut}, and timm builds {name} with all blocks only")
    reasons = []
    for arguments in _arguments(run):
        try:
            model = _filled(timm.create_model(name, num_classes=len(run.label_names), **arguments), case.net)
            with torch.no_grad():
                case.difference("timm's model", "timm", model(_fitted(model, case.x)).numpy())
            return model
        except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
            reasons.append(f"timm's {name} does not take its input ({type(error).__name__})")
        except Unavailable as why:
            reasons.append(str(why))
    raise Unavailable(reasons[0])


def _arguments(run: Run) -> Iterator[dict[str, Any]]:
    """Yield arguments for timm's model; transformers are made for the size of input, and take the mean of patches."""
    size = anatomy.anatomy(run.config.backbone).made_for(run.config.input_size)
    if size is None:
        yield {}
        return
    pooled = {"img_size": size, "global_pool": "avg", "fc_norm": False}
    padded = {"dynamic_img_size": True, "dynamic_img_pad": True}  # by timm, as we do
    yield pooled | padded
    yield pooled | padded | {"final_norm": False}
    yield {"img_size": size}


def _filled(model: Any, net: Any) -> Any:
    """Return timm's model with the weights of a network; raise `Unavailable` if it has other layers."""
    head = model.pretrained_cfg.get("classifier")
    own = model.state_dict()
    tensors = dict(net.backbone.state_dict())
    tensors |= {f"{head}.{part}": tensor for part, tensor in net.head.state_dict().items()}
    if other := [name for name in own if name not in tensors] or [name for name in tensors if name not in own]:
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in other)
        raise Unavailable(
            f"timm's head has layers between pooling and classes that the run does not have ({some(layers)})"
        )
    model.load_state_dict({name: tensor.reshape(own[name].shape) for name, tensor in tensors.items()})
    return model.eval()


def _fitted(model: Any, x: torch.Tensor) -> torch.Tensor:
    """Return inputs padded to the size that a model was made for, unless it does that itself."""
    size = model._model_args.get("img_size") if hasattr(model, "_model_args") else None
    if size is None or model._model_args.get("dynamic_img_pad"):
        return x
    return torch.nn.functional.pad(x, (0, size[1] - x.shape[3], 0, size[0] - x.shape[2]))


def _write_timm(case: _Case, folder: Path) -> Iterator[File]:
    model: Any = _timm_model(case)
    mean, deviation = case.run.normalisation.tolist()
    timm.models.save_for_hf(
        model,
        str(folder),
        model_config={"label_names": list(case.run.label_names)},
        safe_serialization=True,
        data_config={"input_size": tuple(case.x.shape[1:]), "mean": mean, "std": deviation},
    )
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # safetensors lets its owner alone read it
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():
        difference = case.difference("the files", "timm", loaded(_fitted(model, case.x)).numpy())
    yield File("timm", "model.safetensors, config.json", difference)


# --------------------------------------------------------------------------------------------- programs of torch


def _write_pt2(case: _Case, folder: Path) -> Iterator[File]:
    for source in ("features", "waveform"):
        path = folder / f"{source}.pt2"
        torch.export.save(case.program(source), path, extra_files={"facts.json": json.dumps(_facts(case.run))})
        loaded = torch.export.load(path).module()
        with torch.no_grad():
            # One clip more than in the example: the number of clips is free.
            logits = loaded(case.input(source)[[0, 1, 0]])[:2].numpy()
        yield File("pt2", path.name, case.difference(path.name, "pt2", logits))


def _write_onnx(case: _Case, folder: Path) -> Iterator[File]:
    onnxruntime = importlib.import_module("onnxruntime")
    for source in ("features", "waveform"):
        path = folder / f"{source}.onnx"
        exported = case.program(source, products=source == "waveform")
        program: Any = torch.onnx.export(
            exported, dynamo=True, verbose=False, input_names=[source], output_names=["logits"]
        )
        program.model.metadata_props.update({key: json.dumps(value) for key, value in _facts(case.run).items()})
        program.save(path)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits = session.run(["logits"], {source: case.input(source)[[0, 1, 0]].numpy()})[0][:2]
        yield File("onnx", path.name, case.difference(path.name, "onnx", logits))


def _facts(run: Run) -> dict[str, Any]:
    """Return what a program needs to be used: rate, and the names of the classes, in the order of the logits."""
    return {"sample_rate": run.config.features.sr, "label_names": list(run.label_names), "run": run.config.id}


# ------------------------------------------------------------------------------------------------------ all files

_WRITERS: dict[str, Callable[[_Case, Path], Iterator[File]]] = {
    "timm": _write_timm,
    "onnx": _write_onnx,
    "pt2": _write_pt2,
}


def write(run: Run, folder: Path, formats: Sequence[str] = ()) -> Exported:
    """Write the files of formats, and a model card, to a new or empty folder; all of them or nothing.

    Parameters
    ----------
    run : Run
    folder : Path
    formats : sequence of {"timm", "onnx", "pt2"}
        timm: ``model.safetensors`` and ``config.json`` in the layout of timm's hub. onnx, pt2: the network from
        features and from waveforms, for onnxruntime and as saved by ``torch.export``. Default: all that are available.

    Returns
    -------
    Exported
        The files, with the largest difference of their logits from those of `Run.model`.

    Raises
    ------
    ParameterError
        If the folder is not empty, or a format that is named is not available.
    CheckpointError
        If the run is damaged.
    """
    _check_empty(folder)
    case, left_out, files = _Case.of(run), {}, []
    with complete_or_absent(folder, folder=True) as beside, _quiet():
        beside.mkdir()
        for name in tqdm.tqdm(
            dict.fromkeys(formats or FORMATS), desc="exporting", unit="format", delay=2, disable=None
        ):
            complete = {*beside.iterdir()}
            try:
                files += _written(name, case, beside)
            except Unavailable as why:
                left_out[name] = str(why)
                for file in {*beside.iterdir()} - complete:
                    file.unlink()
        if left_out and (formats or not files):
            raise ParameterError(_refused(left_out, files))
        (beside / "model.md").write_text(card(run, files), encoding="utf-8")
    return Exported(folder, tuple(files), left_out)


def _refused(reasons: dict[str, str], files: Sequence[File]) -> str:
    """Return why formats are not available, and which others work or can be tried."""
    why = "; ".join(f"format={name!r} is not available: {reason}" for name, reason in reasons.items())
    work = dict.fromkeys(file.format for file in files)
    others = [name for name in FORMATS if name not in reasons and name not in work]
    instead = [f"{', '.join(work)} would work"] if work else [f"try {' or '.join(others)}"] if others else []
    return "; ".join([why, *instead])


def _written(name: str, case: _Case, folder: Path) -> list[File]:
    """Write the files of a format; raise `Unavailable`, with the reason, if they cannot be made."""
    if missing := [package for package in _PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]:
        raise Unavailable(f"{', '.join(missing)} missing: pip install 'transferlens[{name}]'")
    try:
        return list(_WRITERS[name](case, folder))
    except (Unavailable, OSError, MemoryError):
        raise
    except Exception as error:  # exporters raise many types, for operations that they do not know
        first = next(iter(str(error).splitlines()), "")
        raise Unavailable(f"{type(error).__name__}: {first}") from error


def _check_empty(folder: Path) -> None:
    check_writable("to", folder.parent)
    check_folder("to", folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise ParameterError(f"to={str(folder)!r} is not empty: name a new folder")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the remarks of exporters on their own insides from the terminal."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _interval(run: Run) -> stats.Interval:
    """Return the held-out score of a run with its interval over recordings."""
    if run.scoring is ONE:
        return stats.share_interval(run.right.tolist(), groups=run.groups)
    drawn = multilabel.resampled(run.labels, run.logits[None], groups=run.groups)[0]
    return multilabel.interval(run.score_last, multilabel.mean_known(drawn, 1), len(run.labels))


def card(run: Run, files: Sequence[File]) -> str:
    """Return the model card of a run in Markdown: what it is, how good it is, how the files are loaded."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, loader=jinja2.PackageLoader("transferlens"), trim_blocks=True
    )
    environment.filters["plain"] = markdown
    return environment.get_template("model.md").render(
        run=run,
        files=files,
        formats={file.format for file in files},
        score="Accuracy" if run.scoring is ONE else "Mean average precision (mAP)",
        accuracy=_interval(run),
        several=run.scoring is not ONE,
        uneven=run.class_ratio > UNEVEN,
        size=anatomy.anatomy(run.config.backbone).made_for(run.config.input_size),
    )
