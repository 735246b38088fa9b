"""Preset paper: the networks of torchvision, and one epoch of the code released with the paper, written out."""

import math

import numpy as np
import pytest
import torch
import torchvision as reference
from fake_weights import fake_files, one_thread  # noqa: F401 (fixtures)

from transferlens.features.cache import opened
from transferlens.models import torchvision
from transferlens.models.build import build, skeleton
from transferlens.models.plan import TransferPlan
from transferlens.models.weights import imagenet_state
from transferlens.store.run import normalised
from transferlens.training.trainer import Trainer

PLANS = {"pretrained": TransferPlan(), "scratch": TransferPlan.scratch()}


def test_inception_v3_is_that_of_torchvision(fake):
    """Pretrained: logits of unchanged features by torchvision's network, which changes them itself."""
    network = build("inception_v3", n_classes=4, plan=TransferPlan(), weights=fake("inception_v3")).eval()
    theirs = reference.models.inception_v3(transform_input=True, aux_logits=False, init_weights=False, weights=None)
    state = imagenet_state("inception_v3", fake("inception_v3")).state
    theirs.load_state_dict({name: state[name] for name in theirs.state_dict()})
    theirs.fc = network.head
    S = -7 + 3 * torch.randn(2, 3, 128, 100, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(S)
        torch.testing.assert_close(network(normalised(S, torchvision.input_change())), expected, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(network(S), expected, rtol=1e-2, atol=1e-2)
    torchvision.adapt(network, "inception_v3.tv_in1k")
    assert network.dropout.p == theirs.dropout.p == 0.5


def test_scaled_input_of_inception_v3_written_out():
    x = torch.tensor([-13.8, 0.0, 4.0]).expand(1, 1, 3).repeat(3, 1, 1)[None]
    red = [-13.8 * (0.229 / 0.5) + (0.485 - 0.5) / 0.5, -0.03, 1.802]
    green = [-13.8 * (0.224 / 0.5) + (0.456 - 0.5) / 0.5, -0.088, 1.704]
    blue = [-13.8 * (0.225 / 0.5) + (0.406 - 0.5) / 0.5, -0.188, 1.612]
    torch.testing.assert_close(normalised(x, torchvision.input_change())[0, :, 0], torch.tensor([red, green, blue]))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "tf_efficientnet_lite0"])
def test_residual_branches_from_scratch_start_as_in_torchvision(name):
    network = skeleton(name, n_classes=4, plan=TransferPlan.scratch())
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    torchvision.adapt(network, name)
    after = network.state_dict()
    changed = [key for key in after if not torch.equal(after[key], before[key])]
    assert all(key.endswith("bn2.weight") and after[key].eq(1).all() for key in changed)
    assert len(changed) == (8 if name == "resnet18" else 0)
    assert network.dropout.p == 0


@pytest.mark.parametrize("preset", ["paper", "quick"])
@pytest.mark.parametrize("start", PLANS)
def test_preset_paper_changes_the_input_of_pretrained_inception_v3(study, fake, preset, start):
    weights = fake("inception_v3")
    made = study(backbone="inception_v3", weights=weights, preset=preset, epochs=None, width=75)
    assert made.points(PLANS[start])[0].changes_input == (start == "pretrained" and preset == "paper")


def test_normalisation_is_followed_by_the_change_of_the_input(study, fake):
    weights = fake("inception_v3")
    given = {"backbone": "inception_v3", "weights": weights, "width": 100, "folds": ("1",)}
    plain, scaled = (study(**given, network=network) for network in ("plain", "torchvision"))
    plain, scaled = (Trainer(made.points(TransferPlan())[0], made.data, made.sources) for made in (plain, scaled))
    S = -7 + torch.randn(2, 3, 128, 100)
    expected = normalised(normalised(S, plain.normalisation), torchvision.input_change())
    torch.testing.assert_close(normalised(S, scaled.normalisation), expected)
    assert (plain.network.dropout.p, scaled.network.dropout.p) == (0, 0.5)


def test_epochs_of_preset_paper_are_those_of_the_released_code(study, weights_file):
    """Known answer: a data set of 2 n clips, in any order; the first n are as they are, the others augmented."""
    made = study(folds=("1",), preset="paper", epochs=3, milestones=(1, 2), variants=3)
    (point,) = made.points(TransferPlan())
    trainer = Trainer(point, made.data, made.sources)
    inputs, logits = [], []

    def keep(module, arguments, output):
        if module.training:
            inputs.append(arguments[0].detach().clone())
            logits.append(output.detach().clone())

    trainer.network.register_forward_hook(keep)
    data, n = made.data, len(trainer.rows)
    plain = data.cache.load()[trainer.rows].reshape(n, -1)
    with opened(data.variants(point.training.augmentation).path) as file:
        variants = file["features"][:].astype(np.float32).reshape(-1, 3, plain.shape[1])[trainer.rows]
    used = np.zeros((n, 3), int)
    for epoch in range(2):
        inputs.clear()
        logits.clear()
        trainer.epoch()
        assert len(inputs) == math.ceil(2 * n / point.training.batch_size)
        assert {x.dtype for x in inputs + logits} == {torch.float32}
        drawn = torch.cat(inputs).numpy().reshape(2 * n, -1)
        is_plain = (drawn[:, None] == plain).all(2)
        is_variant = (drawn[:, None, None] == variants[:, 1:]).all(3)
        assert (is_plain.sum(0) == 1).all()
        assert (is_variant.any(2).sum(0) == 1).all()
        assert is_plain.any(1).mean() == is_variant.any((1, 2)).mean() == 0.5
        clip = np.where(is_plain.any(1), is_plain.argmax(1), is_variant.any(2).argmax(1))
        target = torch.from_numpy(data.labels[trainer.rows[clip]])
        loss = torch.nn.functional.cross_entropy(torch.cat(logits), target)
        assert trainer.history["train_loss"][epoch] == pytest.approx(loss.item(), rel=1e-5)
        used[:, 1:] += is_variant.any(0)
    assert (used[:, 1:] == 1).all()  # each rendering once before any is seen again
    assert trainer.provenance["precision"] == "fp32"
    assert trainer.history["lr"] == pytest.approx([1e-4, 1e-5])
