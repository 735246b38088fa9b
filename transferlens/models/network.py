"""A timm model as five blocks and one linear head; `transferlens.models.anatomy` says how the blocks are found.

Importing this module imports torch, which takes seconds: import it inside the function that needs it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from transferlens.models.anatomy import Anatomy, chain, check_grid, normalisations, resampled, to_map
from transferlens.models.forward import seed_of
from transferlens.models.plan import RANDOM
from transferlens.util.errors import CheckpointError, ParameterError

if TYPE_CHECKING:
    from transferlens.models.plan import Statistics, TransferPlan


class Network(nn.Module):
    """A backbone cut after one of its blocks, global average pooling, and a linear head.

    Nothing else is between the last block and the head, in any architecture, except for `dropout`, which is 0 unless
    `torchvision.adapt` sets it. The last convolution of MobileNetV3 and the last normalisation of ConvNeXt work on
    pooled features: they are part of timm's head and are left out. Of tokens the head gets the mean of the patches,
    without the class token.
    `transferlens.models.build.build` constructs it.

    Attributes
    ----------
    backbone : nn.Module
        The kept modules, under timm's names; its own ``forward`` does not work.
    dropout : nn.Dropout
        Before the head, in training.
    head : nn.Linear
        The classifier.
    blocks : tuple of nn.Sequential
        The kept blocks: the modules of `backbone`, not registered a second time. They return states: see `run`.
    channels : tuple of int
        Of the output of each kept block; `width` is the last of them.
    plan : TransferPlan
    """

    def __init__(self, backbone: nn.Module, parts: Anatomy, *, n_classes: int, plan: TransferPlan) -> None:
        super().__init__()
        kept = [parts.blocks[block] for block in plan.blocks]
        _prune(backbone, keep={name for names in kept for name in names})
        self.backbone = backbone
        self.channels = parts.channels[: plan.truncate_after + 1]
        self.width = self.channels[-1]
        self.dropout = nn.Dropout(0.0)
        self.head = nn.Linear(self.width, n_classes)
        self.plan = plan
        self.blocks = chain(backbone, parts, through=plan.truncate_after)
        self._parts = parts
        self._homes = {name: block for block, names in enumerate(kept) for name in names}
        # A ViT's class token and position embedding are not in a module.
        self._homes |= {name: 0 for name, _ in backbone.named_parameters(recurse=False) if name in parts.shapes}
        self._frozen = [block for block in plan.blocks if plan.is_frozen(block)]
        for block in plan.blocks:
            if plan.train[block] != "A":
                self.blocks[block].requires_grad_(False)
            if plan.train[block] == "N":
                for layer in normalisations(self.blocks[block]):
                    layer.requires_grad_(True)
        self.train()

    def train(self, mode: bool = True) -> Network:
        """Set training mode, except for frozen blocks: there only BatchNorm, and only if its statistics are updated."""
        super().train(mode)
        for block in self._frozen:
            self.blocks[block].eval()
            for module in self.blocks[block].modules() if self.plan.bn == "updating" else ():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.training = mode  # not train(mode), as timm's contain dropout
        return self

    def load_pretrained(self, states: Mapping[str, Mapping[str, torch.Tensor]], *, seed: int = 0) -> None:
        """Start blocks from the sources that the plan names for them.

        Parameters
        ----------
        states : mapping of str to mapping of str to torch.Tensor
            The tensors of each source, under timm's names, by the capital letter of the source in the plan.
        seed : int >= 0
            Of the values of blocks that start from the statistics of a source.

        Raises
        ------
        CheckpointError
            If a network that is made for one size of input starts from a run on another size.
        """
        states = {letter: self._fitted(state) for letter, state in states.items()}
        with torch.no_grad():
            for name, tensor in self.backbone.state_dict().items():
                block = self.block_of(f"backbone.{name}")
                letter = self.plan.start[block] if block != "head" else RANDOM
                if letter == RANDOM:
                    continue
                source = states[letter.upper()][name]
                if letter.islower():
                    # Variances are permuted in any case: what is drawn from a normal distribution may be negative.
                    how = "permuted" if name.endswith("running_var") else self.plan.statistics
                    source = redrawn(source, how, seed=seed_of(name, seed))
                tensor.copy_(source)

    def _fitted(self, state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Return weights that fit the size of input: those of timm's own size are resampled."""
        own = {name: tensor.shape for name, tensor in self.backbone.state_dict().items()}
        needed = {name: tensor for name, tensor in state.items() if name in own}
        misfit = {name: tuple(tensor.shape) for name, tensor in needed.items() if tensor.shape != own[name]}
        for name, shape in misfit.items():
            if shape != self._parts.shapes[name]:
                raise CheckpointError(
                    f"{name} of the source is {shape}, not {tuple(own[name])}: the source is of another size of input; "
                    "use features of its size (width, n_mels)"
                )
        if not misfit:
            check_grid(self.backbone)
        return resampled(self.backbone, needed) if misfit else needed

    def run(self, x: torch.Tensor, *, start: int = 0, through: int | None = None) -> torch.Tensor:
        """Run the blocks `start` to `through`, both included; raise ParameterError if the network lacks one of them.

        Parameters
        ----------
        x : torch.Tensor [shape=(batch, channels, height, width)]
            The input of the network, or for ``start > 0`` the state after block ``start - 1``.
        start, through : int
            By default the stem and the last block kept. If `start` is ``through + 1``, `x` is returned.

        Returns
        -------
        torch.Tensor [shape=(batch, channels, height, width)]
            The state after block `through`, all that the blocks behind it need: its map, or in a ViT all tokens in one
            row, those before the patches first.
        """
        last = len(self.blocks) - 1 if through is None else through
        if not 0 <= start <= last + 1 <= len(self.blocks):
            raise ParameterError(f"start={start}, through={last} must be in order, from 0 to {len(self.blocks) - 1}")
        for block in self.blocks[start : last + 1]:
            x = block(x)
        return x

    def map(self, state: torch.Tensor) -> torch.Tensor:
        """Return the map [shape=(batch, channels, height, width)] in a state: of a ViT the tokens of the patches."""
        return to_map(self.backbone, self._parts, state)

    def features(self, x: torch.Tensor, *, start: int = 0, through: int | None = None) -> torch.Tensor:
        """Return the `map` of what `run` returns; if `start` is ``through + 1``, `x` itself, which is a map."""
        last = len(self.blocks) - 1 if through is None else through
        state = self.run(x, start=start, through=through)
        return state if start > last else self.map(state)

    def before(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Return what `forward` takes for `start`: the state after block ``start - 1``; pooled, if the head follows."""
        if start < len(self.blocks):
            return self.run(x, through=start - 1)
        return self.features(x, through=start - 1).mean((2, 3), keepdim=True)

    def forward(self, x: torch.Tensor, *, start: int = 0) -> torch.Tensor:
        """Return the logits [shape=(batch, n_classes)] of inputs, or of what `before` returns for `start`."""
        return self.head(self.dropout(self.features(x, start=start).mean(dim=(2, 3))))

    def block_of(self, name: str) -> int | Literal["head"]:
        """Return the block of a parameter or buffer, or "head", by its name in ``state_dict()``."""
        root, _, path = name.partition(".")
        if root == "head":
            return "head"
        while path and path not in self._homes:
            path = path.rpartition(".")[0]
        if root != "backbone" or not path:
            raise ParameterError(f"name={name!r} is not a parameter or buffer of this network")
        return self._homes[path]


def redrawn(tensor: torch.Tensor, how: Statistics, *, seed: int) -> torch.Tensor:
    """Return a tensor with the mean and standard deviation of another, but none of its structure.

    Parameters
    ----------
    tensor : torch.Tensor
    how : {"normal", "permuted"}
        Values are drawn from a normal distribution, or are those of the tensor in random order.
    seed : int in 0..2**63 - 1

    Returns
    -------
    torch.Tensor [shape of `tensor`, float32]
        Integers, such as BatchNorm's counters, are returned as they are.
    """
    if not tensor.is_floating_point():
        return tensor
    generator = torch.Generator().manual_seed(seed)
    values = tensor.double().flatten()
    if how == "permuted" or values.numel() == 1:
        return values[torch.randperm(values.numel(), generator=generator)].view_as(tensor).float()
    drawn = torch.randn(values.numel(), generator=generator, dtype=torch.float64)
    drawn = (drawn - drawn.mean()) / drawn.std(correction=0)
    return (values.mean() + values.std(correction=0) * drawn).view_as(tensor).float()


def _prune(module: nn.Module, *, keep: Collection[str], prefix: str = "") -> None:
    """Delete all modules except those in `keep` and their parents."""
    for name, child in list(module.named_children()):
        path = prefix + name
        if path in keep:
            continue
        if any(kept.startswith(f"{path}.") for kept in keep):
            _prune(child, keep=keep, prefix=f"{path}.")
        else:
            delattr(module, name)
