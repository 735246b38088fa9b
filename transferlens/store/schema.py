"""What a run file holds: the table of its fields, which is checked whenever a run is opened.

`read` returns every field of a file, finished (.h5) or not (.partial), except for its tensors: type, shape and values
of each are those of the table, and no field contradicts another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from transferlens.measures.scoring import ONE
from transferlens.models.forward import PASS_SIZE
from transferlens.store.config import NAMED, SHA256, RunConfig
from transferlens.util import hdf5
from transferlens.util.errors import CheckpointError, ParameterError
from transferlens.util.fields import Rule, shown
from transferlens.util.lazy import h5py
from transferlens.util.text import CONTROL

TENSORS = ("weights", "fresh", "optimizer")
GROUPS = ("config", "provenance", "history")
TEXT = "text"


def _are_names(texts: Sequence[str]) -> bool:
    return all(texts) and not any(map(CONTROL.search, texts))


@dataclass(frozen=True)
class Field:
    """One field: its type, its shape (a symbol is the same number wherever it stands), and the rule of its values."""

    kind: str
    shape: tuple[int | str, ...]
    rule: Rule
    optional: bool = False


FINITE = Rule("finite", lambda values: np.isfinite(values).all())
AMOUNT = Rule("finite, at least 0", lambda values: (np.isfinite(values) & (values >= 0)).all())
SHARE = Rule("0 to 1", lambda values: ((values >= 0) & (values <= 1)).all())
FIELDS = {
    "label_names": Field(
        TEXT,
        ("classes",),
        Rule(
            "2 or more different names in order, without control characters",
            lambda names: len(names) > 1 and names == sorted(set(names)) and _are_names(names),
        ),
    ),
    "clip_ids": Field(
        TEXT,
        ("clips",),
        Rule(
            "1 or more different ids, without control characters",
            lambda ids: 0 < len(ids) == len(set(ids)) and _are_names(ids),
        ),
    ),
    "groups": Field(TEXT, ("clips",), Rule("names without control characters", _are_names), optional=True),
    "recordings": Field(
        TEXT,
        ("recordings",),
        Rule(
            "different names, without control characters",
            lambda names: len(names) == len(set(names)) and _are_names(names),
        ),
        optional=True,
    ),
    "labels": Field("int64", ("clips",), Rule("at least 0", lambda values: (values >= 0).all())),
    "logits_last": Field("float32", ("clips", "classes"), FINITE),
    "logits_best": Field("float32", ("clips", "classes"), FINITE),
    "normalisation": Field(
        "float64",
        (2, "channels"),
        Rule("finite, with deviations above 0", lambda values: np.isfinite(values).all() and (values[1] > 0).all()),
    ),
    "history/train_loss": Field("float64", ("epochs",), FINITE),
    "history/heldout_loss": Field("float64", ("epochs",), FINITE),
    "history/heldout_accuracy": Field("float64", ("epochs",), SHARE),
    "history/lr": Field("float64", ("epochs",), AMOUNT),
    "history/seconds": Field("float64", ("epochs",), AMOUNT),
}
INNER = {"history/inner_accuracy": Field("float64", ("epochs",), SHARE)}
# Where clips have several labels; scores have another name, too.
SEVERAL = {
    "labels": Field(
        "uint8",
        ("clips", "classes"),
        Rule("0 or 1, with a 1 for every clip", lambda values: (values <= 1).all() and values.any(1).all()),
    )
}
# What the provenance must say, and what it says only in newer files; all else is text or numbers.
PROVENANCE = {
    "features_key": SHA256,
    "precision": Rule("bf16 or fp32", ("bf16", "fp32").__contains__),
    "weights_option": Rule("text", lambda value: isinstance(value, str)),
    "weights_source": Rule("text", lambda value: isinstance(value, str)),
}
LATER = {
    "n_train": Rule("a whole number above 0", lambda value: type(value) is int and value > 0),
    "commonest": Rule("from 0 to 1", lambda value: type(value) is float and 0 <= value <= 1),
    "pass_size": Rule(f"2 to {PASS_SIZE}", lambda value: type(value) is int and 2 <= value <= PASS_SIZE),
}
PLAIN = Rule("one text or number", lambda value: value is None or isinstance(value, (str, int, float)))


def fields_of(config: RunConfig) -> dict[str, Field]:
    """Return the fields of a run."""
    fields = FIELDS | INNER if config.inner_fold else FIELDS
    if config.scoring is ONE:
        return fields
    return {name.replace("accuracy", config.scoring.name): SEVERAL.get(name, fields[name]) for name in fields}


def history_names(config: RunConfig) -> tuple[str, ...]:
    """Return the names of the values that are recorded per epoch."""
    return tuple(name.partition("/")[2] for name in fields_of(config) if name.startswith("history/"))


def source_endings(n_sources: int) -> list[str]:
    """Return what the keys of the provenance end in that are about one source: "" for the first, then "_2", "_3"."""
    return ["", *(f"_{i}" for i in range(2, n_sources + 1))][:n_sources]


def _from_attribute(value: Any) -> Any:
    if isinstance(value, h5py.Empty):
        return None
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return value.item() if isinstance(value, np.generic) else value


def read_attributes(group: Any) -> dict[str, Any]:
    """Return the attributes of an HDF5 group as Python values."""
    return {key: _from_attribute(value) for key, value in group.attrs.items()}


def read_config(file: Any) -> RunConfig:
    """Return the configuration that an open run file holds."""
    try:
        return RunConfig.from_flat(read_attributes(file["config"]))
    except ParameterError as error:
        raise _invalid(file, [str(error)]) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{file.filename} was written by another version of transferlens: {error}") from error


def read(file: Any) -> dict[str, Any]:
    """Return config, provenance, history (a dict) and all other fields of an open run file, but no tensors.

    Raise CheckpointError, naming all that are missing or broken.
    """
    _check_groups(file, TENSORS)
    config, provenance = read_head(file)
    values = read_fields(file, config, list(fields_of(config)))
    if broken := _contradictions(config, values):
        raise _invalid(file, broken)
    history = {name: values.pop(f"history/{name}") for name in history_names(config)}
    return {"config": config, "provenance": provenance, "history": history} | values


def read_head(file: Any) -> tuple[RunConfig, dict[str, Any]]:
    """Return configuration and provenance of an open run file; errors as of `read`."""
    _check_groups(file, GROUPS)
    config, provenance = read_config(file), read_attributes(file["provenance"])
    ends = source_endings(len(config.plan.letters))
    later = LATER | {f"weights_name{end}": NAMED for end in ends}
    rules = dict.fromkeys(provenance, PLAIN) | {name: later[name] for name in later if name in provenance} | PROVENANCE
    rules |= {f"weights_{key}{end}": PROVENANCE[f"weights_{key}"] for key in ("option", "source") for end in ends}
    if broken := [
        f"provenance/{name}={shown(provenance.get(name))} must be {rule.text}"
        for name, rule in rules.items()
        if not rule.holds(provenance.get(name))
    ]:
        raise _invalid(file, broken)
    return config, provenance


def read_fields(file: Any, config: RunConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return fields of an open run file by name; errors as of `read`."""
    sizes, values, broken = {"channels": len(config.features.windows)}, dict[str, Any](), []
    for name in names:
        try:
            values[name] = _read(file, name, fields_of(config)[name], sizes)
        except ValueError as error:
            broken.append(f"{name} {error}")
    if not broken and not 0 < sizes["epochs"] <= config.training.epochs:
        broken = [f"history must have 1 to {config.training.epochs} epochs"]
    if broken:
        raise _invalid(file, broken)
    return values


def _check_groups(file: Any, names: Sequence[str]) -> None:
    if broken := [f"{name} must be a group" for name in names if not isinstance(file.get(name), Mapping)]:
        raise _invalid(file, broken)


def _invalid(file: Any, broken: Sequence[str]) -> CheckpointError:
    words = "; ".join(broken)
    return CheckpointError(
        f"{file.filename} is not a valid run: {words}: move it to another folder, and train the run again"
    )


def _read(file: Any, name: str, field: Field, sizes: dict[str, int]) -> Any:
    """Return the values of a field; raise ValueError if they are not as the table says."""
    group, _, key = name.rpartition("/")
    dataset = (file[group] if group else file).get(key)
    if dataset is None and field.optional:
        return []
    if not isinstance(dataset, h5py.Dataset) or not _fits(dataset, field, sizes):
        words = ", ".join(str(sizes.get(str(size), size)) for size in field.shape)
        raise ValueError(f"must be {field.kind} of shape ({words})")
    values = file.texts(name) if field.kind == TEXT else hdf5.array(dataset).astype(field.kind, copy=False)
    if not field.rule.holds(values):
        raise ValueError(f"must be {field.rule.text}")
    return values


def _fits(dataset: Any, field: Field, sizes: dict[str, int]) -> bool:
    """Return whether an HDF5 data set has the type and shape of a field; new symbols get their size here."""
    if field.kind == TEXT:
        is_kind = h5py.check_string_dtype(dataset.dtype) is not None
    else:
        is_kind = dataset.dtype.newbyteorder("=") == np.dtype(field.kind)
    if not is_kind or dataset.shape is None or len(dataset.shape) != len(field.shape):
        return False
    pairs = zip(field.shape, dataset.shape, strict=True)
    return all((size if isinstance(size, int) else sizes.setdefault(size, n)) == n for size, n in pairs)


def _contradictions(config: RunConfig, values: Mapping[str, Any]) -> list[str]:
    """Return what of a run contradicts something else in it."""
    scoring, labels = config.scoring, values["labels"]
    history = values[f"history/{scoring.held_out}"]

    def is_score(name: str, expected: float) -> bool:
        return bool(np.isclose(scoring.score(values[name], labels), expected))

    rules = {
        f"labels must be below {len(values['label_names'])}": (labels < len(values["label_names"])).all(),
        f"logits_last must have the last {scoring.name}": is_score("logits_last", history[-1]),
        f"logits_best must have the highest {scoring.name}": is_score("logits_best", history.max()),
        "weights_sha256 must have one hash per source of the plan": len(config.weights_sha256.split())
        == len(config.plan.letters),
        "inner_fold must be another fold than fold": config.inner_fold != config.fold,
    }
    return [words for words, holds in rules.items() if not holds]
