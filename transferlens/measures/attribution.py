"""Which cells of its input make a network decide for a class? Attributions, by captum wherever it has them.

Question 5 of Palanisamy, Singhania and Yao (2020, section 4.4); `transferlens.saliency` asks it of runs.

`attribute` explains the logit of one class for each input. An attribution has the shape of the input: positive cells
speak for the class, negative cells against it. `methods.TABLE` lists the methods: what each computes and takes, and
whether it is complete. A complete method sums to the change of the logit from where it starts to the input: from the
baseline, or on average from the references. How far it is from it is the completeness error.

- `transferlens.measures.integrated`: Integrated Gradients [1]_ and Expected Gradients [2]_
- `transferlens.measures.gradients`: DeepLIFT [3]_, DeepLIFT-SHAP and GradientSHAP [4]_, SmoothGrad [5]_, LRP [6]_
- `transferlens.measures.activations`: Grad-CAM and Guided Grad-CAM [7]_, LayerCAM [8]_
- `transferlens.measures.perturbations`: occlusion [9]_, RISE [10]_, LIME [11]_, KernelSHAP [4]_, mask by optimisation
  [12]_
- `transferlens.measures.maps`: from attributions to the map that is shown

References
----------
.. [1] M. Sundararajan, A. Taly, Q. Yan: Axiomatic attribution for deep networks. ICML 2017, equation 1, proposition 1.
.. [2] G. Erion et al.: Improving performance of deep learning models with axiomatic attribution priors and expected
   gradients. Nature Machine Intelligence 3, 2021, equation 3.
.. [3] A. Shrikumar, P. Greenside, A. Kundaje: Learning important features through propagating activation differences.
   ICML 2017, section 3.5.1.
.. [4] S. Lundberg, S. Lee: A unified approach to interpreting model predictions. NeurIPS 2017, theorem 2, section 4.2.
.. [5] D. Smilkov et al.: SmoothGrad: removing noise by adding noise. 2017, arXiv 1706.03825.
.. [6] S. Bach et al.: On pixel-wise explanations for non-linear classifier decisions by layer-wise relevance
   propagation. PLoS ONE 10(7), 2015.
.. [7] R. Selvaraju et al.: Grad-CAM: visual explanations from deep networks via gradient-based localization. ICCV 2017.
.. [8] P. Jiang et al.: LayerCAM: exploring hierarchical class activation maps for localization. IEEE Transactions on
   Image Processing 30, 2021, equations 6 and 7.
.. [9] M. Zeiler, R. Fergus: Visualizing and understanding convolutional networks. ECCV 2014, section 4.2.
.. [10] V. Petsiuk, A. Das, K. Saenko: RISE: randomized input sampling for explanation of black-box models. BMVC 2018,
   section 3.1.
.. [11] M. Ribeiro, S. Singh, C. Guestrin: "Why should I trust you?" Explaining the predictions of any classifier. KDD
   2016, section 3.4.
.. [12] R. Fong, M. Patrick, A. Vedaldi: Understanding deep networks via extremal perturbations and smooth masks. ICCV
   2019, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from transferlens.measures import integrated
from transferlens.measures.maps import MapSettings
from transferlens.measures.methods import DEFAULT, TABLE, MethodName, check_takes
from transferlens.measures.task import Attributed, Task, evaluating, pass_size
from transferlens.models.forward import forward, seeded
from transferlens.util.errors import ParameterError
from transferlens.util.fields import Rule, at_least, between, checked
from transferlens.util.lazy import torch, tqdm

FEWEST = integrated.FEWEST
TOLERANCE = Rule("between 0 and 1: the completeness error allowed", lambda tolerance: 0 < tolerance < 1)
MAP_TOLERANCE = Rule("between 0 and 1: the movement of the map allowed", lambda tolerance: 0 < tolerance < 1)
STEPS = at_least(FEWEST, ": fewer gradients leave large errors in the map")
PATCH = (16, 16)


@dataclass(frozen=True)
class Attribution:
    """What the cells of each input contribute to the logit of its target.

    Attributes
    ----------
    values : ndarray [shape=(n, channels, height, width), float32]
    change : ndarray [shape=(n,)]
        The target's logit for the input minus that for the baseline, or the mean of those for the references.
    error : ndarray [shape=(n,)]
        Completeness error: distance of the values' sum from `change`, relative to it. NaN for methods that are not
        complete.
    steps : ndarray of int [shape=(n,)]
        Number of gradients computed; of outputs, for methods that hide parts of the input.
    movement : ndarray [shape=(n,)]
        Of Integrated and Expected Gradients: L1 distance of the map from that of half as many gradients, relative to
        its norm. NaN for other methods, and if the steps did not suffice to tell.
    """

    values: np.ndarray
    change: np.ndarray
    error: np.ndarray
    steps: np.ndarray
    movement: np.ndarray


@checked
def attribute(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    *,
    targets: Sequence[int],
    baseline: torch.Tensor,
    references: Any = None,
    method: MethodName = DEFAULT,
    tolerance: Annotated[float, TOLERANCE] = 0.01,
    map_tolerance: Annotated[float, MAP_TOLERANCE] = 0.1,
    max_steps: Annotated[int, STEPS] = 256,
    samples: Annotated[int | None, at_least(1)] = None,
    block: tuple[int, ...] = (),
    patch: tuple[Annotated[int, at_least(1)], Annotated[int, at_least(1)]] = PATCH,
    shown: MapSettings | None = None,
    seed: Annotated[int, between(0, 2**32 - 1)] = 0,
    progress: bool = False,
) -> Attribution:
    """Attribute the logit of a class to the cells of the input.

    Parameters
    ----------
    model : torch.nn.Module
        Returns logits [shape=(n, n_classes)]. It is explained in evaluation mode, and left as it was.
    inputs : torch.Tensor [shape=(n, channels, height, width), float]
    targets : sequence of int [shape=(n,)]
        The class of each input whose logit is explained.
    baseline : torch.Tensor
        The input that stands for "nothing", for spectrograms that of silence: one for each input, or one for all.
    references : torch.Tensor [shape=(k, channels, height, width)] or mapping of int to such, optional
        For "expected", "deepliftshap" and "gradientshap": inputs to compare with, such as training clips of other
        classes; the same for all inputs, or by target.
    method : str
        One of `METHODS`.
    tolerance : float in (0, 1)
        For "ig" and "expected": steps are added until the completeness error is at most this,
    map_tolerance : float in (0, 1)
        and until the map moves by less than this: the L1 distance between the maps before and after every part of the
        path was last halved, relative to the L1 norm of the map.
    max_steps : int >= 32
        For "ig" and "expected": largest number of gradients of one input. Networks trained from scratch are so rough
        along the path that some inputs need thousands; `Attribution` tells what was reached.
    samples : int > 0, optional
        For methods of random samples and "mask": number of gradients or outputs. Default: that of `TABLE`.
    block : int or sequence of int, optional
        For "gradcam", "layercam" and "guided-gradcam": the blocks of a `Network` whose outputs are explained. Default:
        the last; for "layercam" the last three.
    patch : tuple of int > 0
        For methods that hide parts of the input: height and width of a patch [cells].
    shown : MapSettings, optional
        How the map is made that must not move. Default: ``MapSettings()``.
    seed : int >= 0
        Of noise and random patches.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Attribution

    Raises
    ------
    ParameterError
        If an argument does not fit the model, the inputs or the method.

    Examples
    --------
    A linear model is explained by its weights:

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> x = torch.ones(1, 1, 2, 2)
    >>> attribution = attribute(model, x, targets=[1], baseline=torch.zeros(1, 2, 2))
    >>> bool(abs(attribution.values.flatten() - model[1].weight[1].detach().numpy()).max() < 1e-6)
    True
    """
    how = TABLE[method]
    inputs, baseline = _checked(inputs, targets, baseline)
    by_target = _checked_references(references, method, inputs, targets)
    check_takes(method, block=block, samples=samples)
    blocks = _checked_blocks(model, method, block)
    found: list[Attributed] = []
    bar = tqdm.tqdm(targets, unit="clip", disable=None if progress else True, delay=2, leave=False)
    with evaluating(model), torch.enable_grad(), seeded(seed, inputs.device):
        size = pass_size(model, inputs)
        change = _change(model, inputs, baseline, by_target, targets, size)
        for x, start, target in zip(inputs, baseline.expand_as(inputs), bar, strict=True):
            task = Task(
                model=model,
                x=x[None],
                baseline=start[None],
                references=by_target.get(target, start[None]),
                target=target,
                tolerance=tolerance,
                map_tolerance=map_tolerance,
                max_steps=max_steps,
                samples=samples or how.samples,
                size=size,
                blocks=blocks,
                patch=patch,
                shown=shown or MapSettings(),
                seed=seed,
            )
            with seeded(seed, inputs.device):
                values, steps, movement = how.function(task)
            found.append(Attributed(values[0].detach().float().cpu(), steps, movement))
    values = np.stack([each.values.numpy() for each in found])
    sums = values.sum((1, 2, 3), dtype=np.float64)
    return Attribution(
        values=values,
        change=change,
        error=_relative(sums - change, change) if how.complete else np.full(len(sums), np.nan),
        steps=np.array([each.steps for each in found]),
        movement=np.array([each.movement for each in found]),
    )


def _change(
    model: torch.nn.Module,
    inputs: torch.Tensor,
    baseline: torch.Tensor,
    references: Mapping[int, torch.Tensor],
    targets: Sequence[int],
    size: int,
) -> np.ndarray:
    """Return the logits of the targets for the inputs minus those for the baseline or references [shape=(n,)]."""
    after, before = (forward(model, x, batch_size=size).double().numpy() for x in (inputs, baseline))
    n_classes = after.shape[1]
    if wrong := sorted({target for target in targets if not 0 <= target < n_classes}):
        raise ParameterError(f"targets={wrong} must be from 0 to {n_classes - 1}: the network has {n_classes} classes")
    before = np.broadcast_to(before, after.shape).copy()
    for target, others in references.items():
        mean = forward(model, others, batch_size=size).double().mean(0).numpy()
        before[np.array(targets) == target] = mean
    return (after - before)[range(len(targets)), targets]


def _relative(difference: np.ndarray, change: np.ndarray) -> np.ndarray:
    """Return the difference relative to the change; 0 where both are 0."""
    with np.errstate(divide="ignore"):
        return np.divide(np.abs(difference), np.abs(change), out=np.zeros(len(change)), where=difference != 0)


def _check_floats(name: str, value: Any) -> None:
    if not torch.is_tensor(value) or not value.is_floating_point() or not value.isfinite().all():
        raise ParameterError(f"{name} must be a tensor of finite floats")


def _checked(inputs: Any, targets: Sequence[int], baseline: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and baseline with as many axes as the inputs; raise if an argument does not fit."""
    _check_floats("inputs", inputs)
    _check_floats("baseline", baseline)
    if inputs.ndim != 4 or 0 in inputs.shape:
        raise ParameterError(f"inputs of shape {tuple(inputs.shape)} must be (n, channels, height, width)")
    if tuple(baseline.shape) not in {tuple(inputs.shape), (1, *inputs.shape[1:]), tuple(inputs.shape[1:]), ()}:
        raise ParameterError(
            f"baseline of shape {tuple(baseline.shape)} must be that of the inputs, {tuple(inputs.shape)}, or of one"
        )
    if len(targets) != len(inputs):
        raise ParameterError(f"targets={targets} must be one for each of the {len(inputs)} inputs")
    baseline = baseline.detach().to(inputs).expand(inputs.shape[1:] if baseline.ndim == 0 else baseline.shape)
    return inputs.detach(), baseline.reshape(-1, *inputs.shape[1:])


def _checked_references(
    references: Any, method: str, inputs: torch.Tensor, targets: Sequence[int]
) -> dict[int, torch.Tensor]:
    """Return the references of each target; empty if the method does not need any."""
    if not TABLE[method].needs_references:
        return {}
    if references is None:
        raise ParameterError(f"method={method!r} needs references: inputs to compare with, such as training clips")
    by_target = references if isinstance(references, Mapping) else dict.fromkeys(targets, references)
    if missing := sorted({target for target in targets if target not in by_target}):
        raise ParameterError(f"references must be given for the targets {missing}")
    for others in by_target.values():
        _check_floats("references", others)
        if others.ndim != 4 or not len(others) or others.shape[1:] != inputs.shape[1:]:
            raise ParameterError(
                f"references of shape {tuple(others.shape)} must be (k, {', '.join(map(str, inputs.shape[1:]))})"
            )
    return {target: by_target[target].detach().to(inputs) for target in set(targets)}


def _checked_blocks(model: Any, method: str, block: Sequence[int]) -> list[torch.nn.Module]:
    """Return the blocks that a method explains; raise if it or they do not fit the model."""
    if "block" not in TABLE[method].takes:
        return []
    blocks = getattr(model, "blocks", ())
    if not len(blocks):
        raise ParameterError(f"method={method!r} needs a model with blocks, as build.build and Run.model return")
    if wrong := [number for number in block if number not in range(len(blocks))]:
        raise ParameterError(f"block={wrong[0]} must be from 0 to {len(blocks) - 1} for {method}")
    numbers = block or [len(blocks) + number for number in TABLE[method].blocks if len(blocks) + number >= 0]
    return [blocks[number] for number in sorted(set(numbers))]
