"""Layers of two networks compared, as rows of tables.

* `Row`: one layer, which `row_of` makes of its similarity
* `WeightRow`, `MatrixRow`: one tensor, and two blocks
"""

from __future__ import annotations

from dataclasses import dataclass

from transferlens.compare.network_pairs import NetworkPair
from transferlens.measures.cca import RESAMPLED
from transferlens.measures.layerwise import LayerSimilarity
from transferlens.measures.similarity import chance

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """One layer of one comparison in the CSV.

    `low` and `high` are the 95 % interval of SVCCA over clips, for as many other clips, not for many more.
    A column that ends in `_null` is for clips paired with other clips, `svcca_excess` is SVCCA minus its null, and
    `svcca_chance` is SVCCA of independent noise of the same shape. `too_few`: samples are fewer than five times the
    neurons, so that all measures but debiased CKA are high whatever the networks are; there are no intervals then.
    """

    comparison: str
    kind: str
    clips: str
    arm: str
    first: str
    second: str
    layer: str
    block: int
    depth: int
    n_neurons: int
    n_samples: int
    dims_before: int
    dims_after: int
    svcca: float
    low: float
    high: float
    svcca_null: float
    svcca_excess: float
    svcca_chance: float
    pwcca: float
    pwcca_low: float
    pwcca_high: float
    pwcca_null: float
    cka: float
    cka_low: float
    cka_high: float
    cka_null: float
    debiased_cka: float
    debiased_cka_null: float
    procrustes: float
    procrustes_null: float
    too_few: bool
    weight_relative_change: float
    weight_cosine: float

    @property
    def is_block(self) -> bool:
        """Whether the layer is the end of a block, not a convolution."""
        return self.layer == f"block {self.block}"


@dataclass(frozen=True)
class WeightRow:
    """One parameter or BatchNorm statistic of one comparison in svcca_weights.csv."""

    comparison: str
    tensor: str
    block: str
    relative_change: float
    cosine: float


@dataclass(frozen=True)
class MatrixRow:
    """Debiased linear CKA of the pooled outputs of two blocks in svcca_matrix.csv."""

    comparison: str
    block_first: int
    block_second: int
    debiased_cka: float


def row_of(pair: NetworkPair, label: str, clips: str, similarity: LayerSimilarity, change: tuple[float, float]) -> Row:
    """Return the row of a layer.

    Parameters
    ----------
    pair : NetworkPair
    label, clips : str
        The pair, and the clips that the networks see, in words.
    similarity : LayerSimilarity
    change : tuple of 2 float
        Relative change and cosine of the layer's weights, as `weight_change` returns them.
    """
    layer, svcca = similarity.layer, similarity.measures["svcca"]
    values: dict[str, float] = {}
    for name, measured in similarity.measures.items():
        values[name] = measured.similarity
        values[f"{name}_null"] = similarity.null[name].similarity if similarity.null else NAN
    for name in RESAMPLED:
        prefix = "" if name == "svcca" else f"{name}_"
        values[f"{prefix}low"], values[f"{prefix}high"] = similarity.intervals.get(name, (NAN, NAN))
    return Row(
        comparison=label,
        kind=pair.kind,
        clips=clips,
        arm=pair.arm,
        first=pair.first.config.id,
        second=pair.second.config.id,
        layer=layer.name,
        block=layer.block,
        depth=layer.depth,
        n_neurons=similarity.n_neurons,
        n_samples=similarity.n_samples,
        dims_before=svcca.dims[0],
        dims_after=svcca.dims[1],
        **values,
        svcca_excess=values["svcca"] - values["svcca_null"],
        svcca_chance=chance(svcca.dims, svcca.n_samples) if min(svcca.dims) else NAN,
        too_few=similarity.too_few,
        weight_relative_change=change[0],
        weight_cosine=change[1],
    )
