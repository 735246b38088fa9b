"""State dicts of networks of one architecture: points between two, the average of several, the distance of two.

* `between`: a point on the straight line from one network to another
* `average`: the mean of several networks, a "soup"
* `distance`: by how much some tensors have changed, relative to their size
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from transferlens.util.errors import ParameterError
from transferlens.util.lazy import torch

State = Mapping[str, "torch.Tensor"]


def _check_alike(states: Sequence[State]) -> None:
    """Raise if state dicts are missing, or do not have the same tensors."""
    if not states:
        raise ParameterError("states must be one or more state dicts")
    shapes = [{name: tuple(tensor.shape) for name, tensor in state.items()} for state in states]
    for other in shapes[1:]:
        if wrong := sorted(name for name in {*shapes[0], *other} if shapes[0].get(name) != other.get(name)):
            raise ParameterError(f"states differ in {wrong[0]}: they must be of one architecture, cut after one block")


def between(
    first: State, second: State, share: float, *, of: Callable[[str], bool] = lambda name: True
) -> dict[str, torch.Tensor]:
    """Return the point at a share of the way from one network to another: 0 is the first, 1 the second, exactly.

    Parameters
    ----------
    first, second : state dicts of one architecture
    share : float in [0, 1]
    of : callable, optional
        Takes the name of a tensor: those for which it is false are those of the second network. Counters, which are
        whole numbers, always are.

    Raises
    ------
    ParameterError
        If the networks are of different architectures, or the share is outside its range.

    Examples
    --------
    >>> import torch
    >>> between({"w": torch.zeros(1)}, {"w": torch.ones(1)}, 0.25)
    {'w': tensor([0.2500])}
    """
    _check_alike([first, second])
    if not 0 <= share <= 1:
        raise ParameterError(f"share={share} must be 0 to 1")
    return {
        name: torch.lerp(first[name], end, share) if end.is_floating_point() and of(name) else end.clone()
        for name, end in second.items()
    }


def average(states: Sequence[State]) -> dict[str, torch.Tensor]:
    """Return the mean of networks of one architecture; counters are those of the first.

    References
    ----------
    M. Wortsman et al.: Model soups: averaging weights of multiple fine-tuned models improves accuracy without
    increasing inference time. ICML 2022, section 2 (uniform soup).

    Examples
    --------
    >>> import torch
    >>> average([{"w": torch.zeros(1)}, {"w": torch.ones(1)}])
    {'w': tensor([0.5000])}
    """
    _check_alike(states)
    return {
        name: (sum(state[name].double() for state in states) / len(states)).to(tensor.dtype)  # type: ignore[union-attr]
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in states[0].items()
    }


def distance(start: State, end: State, names: Collection[str]) -> float:
    """Compute the Euclidean distance of the named tensors, relative to the norm of those at the start.

    It is 0 without any tensor, and infinite if all are zero at the start alone.
    """
    if not names:
        return 0.0
    before, after = (torch.cat([state[name].double().flatten() for name in names]) for state in (start, end))
    moved, size = (after - before).norm().item(), before.norm().item()
    return moved / size if size else float("inf") if moved else 0.0
