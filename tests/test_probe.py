"""Linear probes: their plans, and that the head is all that is trained."""

from __future__ import annotations

import re

import pytest

from transferlens import probe
from transferlens.models.build import skeleton
from transferlens.models.plan import BLOCKS, TransferPlan


def test_plans():
    imagenet, random = probe.ANALYSIS.plans.values()
    assert imagenet == {k: TransferPlan.probe(k) for k in BLOCKS[1:]}
    assert not any(plan.is_pretrained(block) for plan in random.values() for block in plan.blocks)


@pytest.mark.parametrize("plan", [plan for plans in probe.ANALYSIS.plans.values() for plan in plans.values()], ids=str)
def test_only_the_head_is_trained(plan):
    network = skeleton("test_resnet", n_classes=3, plan=plan)
    trained = {network.block_of(name) for name, tensor in network.named_parameters() if tensor.requires_grad}
    assert trained == {"head"}


def test_command_puts_random_features_beside(options, tmp_path, capsys):
    assert probe.main([*options, "--folds", "1", "--block", "1", "4"]) == 0
    printed = capsys.readouterr().out
    assert {"probe of imagenet.safetensors features, block 4", "probe of random features, block 1"} <= set(
        re.findall(r"probe of [\w.]+ features, block \d", printed)
    )
    assert (tmp_path / "figures" / "probe.png").stat().st_size > 0


def test_a_stem_has_no_probe(options, capsys):
    assert probe.main([*options, "--block", "0"]) == 2
    assert "block=0 must be among 1, 2, 3, 4 for probe: it names the block that is read" in capsys.readouterr().err
