"""Transformers as backbones: five blocks that are timm's model, for any size of input, and analyses of them."""

import copy

import captum
import numpy as np
import pytest
import timm
import torch
from fake_weights import fake_files, one_thread, randomised  # noqa: F401 (fixtures)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from transferlens.data.catalogue import DataOptions
from transferlens.measures.attribution import attribute
from transferlens.measures.layerwise import block_matrix, compare, layers
from transferlens.models.anatomy import anatomy
from transferlens.models.build import block_table, build, check, cost, imagenet_state, skeleton
from transferlens.models.plan import TransferPlan
from transferlens.store.heldout import classify, heldout_features
from transferlens.util.errors import CheckpointError, ParameterError

SIZE, PADDED = (64, 75), (64, 96)  # no multiple of 16 or 32; to multiples of 32
# timm's small ones, of all kinds but Swin, and those that people use. Channels of each block, stride, last grid.
SMALL = {
    "test_vit2": ((64,) * 5, 16, (4, 5)),
    "test_maxvit": ((32, 32, 64, 96, 128), 32, (2, 3)),
    "test_coatnet": ((32, 32, 64, 96, 128), 32, (2, 3)),
}
LARGE = {
    "vit_tiny_patch16_224": ((192,) * 5, 16, (4, 5)),
    "deit_tiny_patch16_224": ((192,) * 5, 16, (4, 5)),
    "deit_tiny_distilled_patch16_224": ((192,) * 5, 16, (4, 5)),
    "swin_tiny_patch4_window7_224": ((96, 96, 192, 384, 768), 32, (2, 3)),
    "maxvit_tiny_rw_224": ((64, 64, 128, 256, 512), 32, (2, 3)),
    "coatnet_0_rw_224": ((64, 96, 192, 384, 768), 32, (2, 3)),
}
KINDS = SMALL | LARGE
EACH = pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
EACH_SMALL = pytest.mark.parametrize("name", SMALL)


def inputs(n=1, *, seed=0):
    return torch.randn(n, 3, *SIZE, generator=torch.Generator().manual_seed(seed))


def network(name, plan=TransferPlan(), **options):  # noqa: B008 (it is frozen)
    """A network whose tensors are all random: no scale is 0 or 1."""
    plain = skeleton(name, n_classes=5, plan=plan, input_size=SIZE, **options).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in plain.backbone.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return plain


def padded_size(name):
    return SIZE[0], -(-SIZE[1] // KINDS[name][1]) * KINDS[name][1]


def padded(name, x):
    """The input as timm's ``dynamic_img_pad`` pads it."""
    return torch.nn.functional.pad(x, (0, padded_size(name)[1] - SIZE[1]))


def timms(name, state):
    """timm's model for the size of the padded input, with the tensors of a backbone."""
    model = timm.create_model(name, num_classes=0, img_size=padded_size(name)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.startswith(("head", "fc_norm")) for key in missing)
    return model


def step(model, x):
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    loss = torch.nn.functional.cross_entropy(model(x), torch.arange(len(x)))
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


# ------------------------------------------------------------------------------------------------ blocks


@EACH
def test_blocks_return_timms_intermediate_maps(name):
    ours = network(name)
    model = timms(name, ours.backbone.state_dict())
    channels, _, grid = KINDS[name]
    depth = len(model.feature_info)
    places = {12: [2, 5, 8, 11], 8: [1, 3, 5, 7]}.get(depth, [depth - 4, depth - 3, depth - 2, depth - 1])
    with torch.no_grad():
        last, maps = model.forward_intermediates(padded(name, inputs()), indices=places, output_fmt="NCHW")
        for block, expected in enumerate(maps[:3], 1):
            torch.testing.assert_close(ours.features(inputs(), through=block), expected)
        ends = model.forward_intermediates(
            padded(name, inputs()), indices=places, norm=True, output_fmt="NCHW", intermediates_only=True
        )
        y = ours.features(inputs())
        torch.testing.assert_close(y, ends[-1])
        torch.testing.assert_close(ours(inputs()), ours.head(ends[-1].mean((2, 3))))
    assert tuple(y.shape) == (1, channels[-1], *grid)
    assert [p.shape[1] for p in (ours.features(inputs(), through=k) for k in range(5))] == list(channels)
    assert ours.backbone.state_dict().keys() == anatomy(name).shapes.keys()


@EACH
def test_block_table_agrees_with_torchs_counter(name):
    ours, table = network(name), block_table(name, input_size=SIZE)
    channels, stride, grid = KINDS[name]
    assert tuple(row.channels for row in table) == channels
    assert (table[-1].stride, table[-1].size) == (stride, grid)
    assert sum(row.parameters for row in table) == sum(p.numel() for p in ours.backbone.parameters())
    x, counter = inputs(), FlopCounterMode(display=False)
    for row, block in zip(table, ours.blocks, strict=True):
        assert row.parameters == sum(p.numel() for p in block.parameters())
        with sdpa_kernel(SDPBackend.MATH), torch.no_grad(), counter:
            x = block(x)
        assert row.multiply_adds == counter.get_total_flops() // 2
    plan = TransferPlan.truncate(2)
    expected = sum(p.numel() for p in network(name, plan).parameters())
    assert cost(name, n_classes=5, plan=plan, input_size=SIZE).parameters == expected


@EACH_SMALL
def test_memory_kept_for_gradients_is_at_least_what_torch_saves(name):
    ours, saved = network(name).train(), {}

    def keep(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = ours.features(inputs())  # must live, or memory is used again
    for tensor in ours.state_dict().values():
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    kept = cost(name, n_classes=5, plan=TransferPlan(), input_size=SIZE).kept
    assert len(y) * kept >= 0.95 * sum(saved.values())  # at most: fused attention saves no matrices
    assert len(y) * kept <= 1.5 * sum(saved.values())


@EACH_SMALL
def test_a_cut_network_is_the_beginning_of_the_whole_one(name):
    whole = network(name)
    for k in range(1, 5):
        cut = network(name, TransferPlan.truncate(k))
        assert list(cut.backbone.state_dict()) == [
            key for key in whole.backbone.state_dict() if whole.block_of(f"backbone.{key}") <= k
        ]
        cut.backbone.load_state_dict({key: whole.backbone.state_dict()[key] for key in cut.backbone.state_dict()})
        with torch.no_grad():
            features = whole.features(inputs(), through=k)
            assert torch.equal(cut.features(inputs()), features)
            torch.testing.assert_close(cut(inputs()), cut.head(features.mean((2, 3))))


@EACH_SMALL
def test_running_from_any_block_is_running_from_the_input(name):
    ours = network(name)
    with torch.no_grad():
        logits = ours(inputs(2))
        for start in range(1, 6):
            before = ours.before(inputs(2), start)
            # In the order in which the outputs of frozen blocks are kept.
            before = before.contiguous(memory_format=torch.channels_last)
            torch.testing.assert_close(ours(before, start=start), logits)
    assert before.shape[2:] == (1, 1)


@EACH_SMALL
def test_the_last_columns_are_those_of_the_input_and_zeros(name):
    ours, x = network(name), inputs()
    with torch.no_grad():
        assert torch.equal(ours(padded(name, x)), ours(x))
        x[..., -1] += 1
        assert not torch.equal(ours(padded(name, x)), ours(inputs()))


# -------------------------------------------------------------------------------------------- experiments


@EACH
def test_one_training_step_changes_exactly_the_blocks_that_are_not_frozen(name):
    ours = network(name, TransferPlan.freeze(1))
    before = copies(ours)
    step(ours, inputs(2))
    moved = {ours.block_of(key) for key, tensor in ours.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == {2, 3, 4, "head"}
    cut = network(name, TransferPlan(pretrained_through=None, truncate_after=2))
    before = copies(cut)
    step(cut, inputs(2))
    moved = {cut.block_of(key) for key, tensor in cut.state_dict().items() if not torch.equal(tensor, before[key])}
    assert moved == {0, 1, 2, "head"}


def test_class_token_and_positions_belong_to_the_stem_by_timms_names():
    ours = skeleton("vit_tiny_patch16_224", n_classes=5, plan=TransferPlan.freeze(0), input_size=SIZE)
    frozen = {name for name, p in ours.named_parameters() if not p.requires_grad}
    assert frozen >= {"backbone.cls_token", "backbone.pos_embed"}
    assert {ours.block_of(name) for name in frozen} == {0}
    assert ours.block_of("backbone.norm.weight") == 4
    with torch.no_grad():
        tokens, patches = ours.run(inputs()), ours.features(inputs())
    assert (tokens.shape, patches.shape) == ((1, 192, 1, 21), (1, 192, 4, 5))
    assert torch.equal(tokens[0, :, 0, 1:], patches.flatten(2)[0])


def test_a_copy_has_its_own_positions():
    ours = network("test_vit2")
    twin = copy.deepcopy(ours)
    with torch.no_grad():
        assert torch.equal(twin(inputs()), ours(inputs()))
        twin.backbone.pos_embed += torch.randn_like(twin.backbone.pos_embed)
        assert not torch.equal(twin(inputs()), ours(inputs()))
    twin.blocks[0].requires_grad_(False)
    assert ours.backbone.pos_embed.requires_grad
    assert not twin.backbone.pos_embed.requires_grad


@EACH
def test_integrated_gradients_sum_to_the_change_of_the_logit(name):
    found = attribute(network(name), inputs(), targets=[0], baseline=torch.tensor(0.0), tolerance=0.05, max_steps=32)
    assert found.values.shape == (1, 3, *SIZE)
    assert np.isfinite(found.values).all()
    assert found.values[..., -1].any()
    assert found.error[0] == pytest.approx(abs(found.values.sum() - found.change[0]) / abs(found.change[0]), abs=1e-4)


@EACH
def test_activations_are_those_of_the_blocks_maps(name):
    first, second, x = network(name), network(name, seed=1), inputs(4)
    names = [layer.name for layer in layers(first, x[:1])]
    assert [each for each in names if each.startswith("block ")] == [f"block {k}" for k in range(5)]
    rows = {row.layer.name: row for row in compare(first, second, x, positions="4", resamples=0)}
    for k, channels in enumerate(KINDS[name][0]):
        assert (rows[f"block {k}"].n_neurons, rows[f"block {k}"].n_samples) == (channels, 4 * 4)
    same = block_matrix(first, first, x)
    np.testing.assert_allclose(np.diag(same), 1)


# -------------------------------------------------------------------------------------------------- Grad-CAM


def test_grad_cam_of_a_convolutional_network_is_captums():
    ours = skeleton("test_resnet", n_classes=5, plan=TransferPlan()).eval()
    for block in (1, 4):
        ours_map = attribute(ours, inputs(), targets=[1], baseline=torch.tensor(0.0), method="gradcam", block=block)
        values = captum.attr.LayerGradCam(ours, ours.blocks[block]).attribute(inputs(), target=1)
        expected = torch.nn.functional.interpolate(values, SIZE, mode="bilinear").expand(1, 3, *SIZE) / 3
        np.testing.assert_array_equal(ours_map.values, expected.detach().numpy())


def test_grad_cam_of_a_vit_is_of_the_patches():
    """The last map is linear in the logit: all gradients are the head's weights, divided by the number of patches."""
    ours = network("test_vit2")
    found = attribute(ours, inputs(), targets=[1], baseline=torch.tensor(0.0), method="gradcam")
    with torch.no_grad():
        values = (ours.features(inputs()) * ours.head.weight[1][:, None, None] / 20).sum(1, keepdim=True)
        expected = torch.nn.functional.interpolate(values, SIZE, mode="bilinear") / 3
    np.testing.assert_allclose(found.values[:, :1], expected.numpy(), rtol=1e-4, atol=1e-7)


# --------------------------------------------------------------------------------------------------- weights


@EACH
def test_weights_are_resampled_as_timm_does(name, fake):
    ours = build(name, n_classes=5, plan=TransferPlan(), weights=fake(name), input_size=SIZE)
    overlay = {"file": str(fake(name))}
    size = padded_size(name)
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, img_size=size)
    expected = model.state_dict()
    for key, tensor in ours.backbone.state_dict().items():
        assert torch.equal(tensor, expected[key]), key
    assert any(tensor.shape != anatomy(name).shapes[key] for key, tensor in ours.backbone.state_dict().items())


def test_weights_of_timms_own_size_are_not_resampled(fake):
    ours = build("test_vit2", n_classes=5, plan=TransferPlan(), weights=fake("test_vit2"), input_size=(160, 155))
    state = randomised("test_vit2", seed=1)
    assert all(torch.equal(tensor, state[key]) for key, tensor in ours.backbone.state_dict().items())


def test_weights_of_another_size_than_timms_are_refused():
    state = skeleton("test_vit2", n_classes=5, plan=TransferPlan(), input_size=(64, 64)).backbone.state_dict()
    ours = skeleton("test_vit2", n_classes=5, plan=TransferPlan(), input_size=(64, 128))
    with pytest.raises(
        CheckpointError, match=r"pos_embed of the source is \(1, 17, 64\), not .* another size of input"
    ):
        ours.load_pretrained({"I": state})


def test_a_run_is_trained_and_read_and_names_weights_by_the_file(study, fake, tmp_path):
    """Outputs of frozen blocks are computed once; the hash of weights does not depend on the size of input."""
    plans, hashes = [TransferPlan.freeze(2), TransferPlan.freeze(4), TransferPlan.truncate(2)], set()
    for width in (40, 72):
        made = study(backbone=("test_vit2",), weights=str(fake("test_vit2")), width=width, folds=("1",))
        for run in made.gather([point for plan in plans for point in made.points(plan)]).values():
            hashes.add(run.config.weights_sha256)
            S = heldout_features(run, DataOptions(), tmp_path / "cache")
            np.testing.assert_allclose(classify(run, run.model(), S), run.logits, rtol=1e-3, atol=1e-3)
            before, after = run.initial_state(), run.final_state()
            network = run.model()
            changed = {network.block_of(name) for name in before if not torch.equal(before[name], after[name])}
            assert changed == {*range(run.config.plan.n_frozen, run.config.plan.truncate_after + 1), "head"}
    assert hashes == {imagenet_state("test_vit2", fake("test_vit2")).sha256}


def test_a_run_is_a_source_for_inputs_of_its_size(study):
    options = {"backbone": ("test_vit2",), "folds": ("1",), "epochs": 1, "weights": "auto"}
    (run,) = study(width=40, **options).runs(TransferPlan.scratch())
    later = {"source": (f"earlier={run.path}",)} | options
    (start,) = (again.initial_state() for again in study(width=40, **later).runs(TransferPlan()))
    assert all(torch.equal(start[key], tensor) for key, tensor in run.final_state().items() if "backbone" in key)
    with pytest.raises(CheckpointError, match="the source is of another size of input; use features of its size"):
        study(width=72, **later).runs(TransferPlan())


# -------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gmixer_12_224", r"its weights fit inputs of 224x224 pixels only: blocks\.0\.mlp_tokens"),
        ("test_vit", r"it has one resolution, and its depth of 6 is not a multiple of 4"),
        ("test_vit_relpos", r"its modules do not run one after the other"),
        ("efficientformer_l1", r"it does not run on 128x128 pixels, but on 224x224"),
        ("convit_tiny", r"its modules do not run one after the other"),
    ],
)
def test_networks_that_cannot_be_cut_say_why(name, message):
    with pytest.raises(ParameterError, match=message) as caught:
        check(name)
    assert "\n" not in str(caught.value)


def test_a_network_of_one_resolution_is_cut_in_quarters_of_its_depth():
    rows = block_table("convmixer_768_32", input_size=(64, 64))
    assert [row.channels for row in rows] == [768] * 5
    assert len({row.parameters for row in rows[1:]}) == 1


def test_another_grid_of_as_many_patches_is_refused(fake):
    with pytest.raises(ParameterError, match="an input of 5x20 patches has as many as timm's own of 10x10"):
        build("test_vit2", n_classes=5, plan=TransferPlan(), weights=fake("test_vit2"), input_size=(80, 320))
