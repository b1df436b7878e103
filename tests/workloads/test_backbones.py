"""Backbones of image features: as large as published, counted in step, FLOPs and memory, and never trained."""

import numpy as np
import pytest
from athanor import simulate
from athanor.hardware.errors import InputError
from athanor.workloads.datasets import load_dataset
from athanor.workloads.lowering import lower_step
from athanor.workloads.memory import account
from athanor.workloads.model.backbones import BACKBONES
from athanor.workloads.model.flops import forward_flops
from athanor.workloads.model.model import load_model
from athanor.workloads.plan.setting import Setting

PLAIN = load_model("m6-10b").changed({"layers": 2})
IMAGES = PLAIN.changed({"backbone": "resnet50", "patch_pixels": 64})
PLAN = {"mesh": "dp=2", "zero": "0"}


@pytest.mark.parametrize(
    ("name", "billions", "weights"),
    # He et al. 2016, table 1 (multiply-adds of 224 x 224 pixels, classifier included); weights of convolutions by torchvision
    [("resnet50", 3.8, 23_454_912), ("resnet101", 7.6, 42_394_816), ("resnet152", 11.3, 57_992_384)],
)
def test_residual_networks_are_as_published(name, billions, weights):
    backbone = BACKBONES[name]
    assert backbone.flops(224) / 2e9 + 2048e3 / 1e9 == pytest.approx(billions, rel=0.025)
    assert backbone.weights == weights


def test_flops_of_features_are_counted_once_forward():
    plain, images = (lower_step(Setting.of("eos-h100", each, PLAN))[0] for each in (PLAIN, IMAGES))
    setting = Setting.of("eos-h100", IMAGES, PLAN)
    patches = setting.batch.tokens * IMAGES.patches / IMAGES.seq_len
    convolutions = patches * BACKBONES["resnet50"].flops(64)
    products = sum(images.product_flops().values()) - sum(plain.product_flops().values())
    assert products == pytest.approx(2 * convolutions), "both ranks"
    tokens = setting.batch.tokens
    of_model = [forward_flops(each, tokens, each.seq_len).trained for each in (PLAIN, IMAGES)]
    assert of_model[1] - of_model[0] == pytest.approx(convolutions)
    added = [each.task for each in images.operations if each.task.operand == "features"]
    assert added
    assert not any(task.gradient for task in added), "it is not trained"


def test_a_step_with_a_backbone_is_longer_by_what_it_computes_and_holds_its_weights():
    plain, images = (simulate("eos-h100", each, **PLAN).summary() for each in (PLAIN, IMAGES))
    more = images["step_seconds"] - plain["step_seconds"]
    assert 0 < more < 0.5 * plain["step_seconds"]
    assert images["breakdown"]["compute"] - plain["breakdown"]["compute"] == pytest.approx(more, rel=0.05)
    assert images["parameters"] == plain["parameters"]
    lines = [
        {line.name: float(np.sum(line.nbytes)) for line in account(Setting.of("eos-h100", each, PLAN), []).lines}
        for each in (PLAIN, IMAGES)
    ]
    assert "backbone" not in lines[0]
    assert lines[1]["backbone"] > 0
    with_stages = account(Setting.of("eos-h100", IMAGES, {"mesh": "pp=2", "zero": "0"}), []).lines
    found = [np.asarray(line.nbytes) for line in with_stages if line.name == "backbone"]
    assert found
    assert all(each[0] > 0 and each[1] == 0 for each in found), "images enter the first stage"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "resnet50"}, "needs patches and patch_pixels"),
        ({"backbone": "resnet50", "patch_pixels": 64, "patch_values": 1024}, "resnet50 makes 2048 numbers"),
        ({"backbone": "resnet18", "patch_pixels": 64}, "backbone"),
    ],
)
def test_backbones_that_cannot_be_are_refused(changes, said):
    with pytest.raises(InputError, match=said):
        PLAIN.changed(changes)


def test_images_of_the_corpus_are_an_eighth_of_their_features():
    features, images = load_dataset("m6-corpus"), load_dataset("m6-corpus-images")
    sizes = {each.name: each.size for each in features.part}
    assert sizes == {"text": 97.2e9, "images": 1.9e12, "features": 16e12}
    assert features.nbytes == 97.2e9 + 16e12
    assert images.nbytes == 97.2e9 + 1.9e12
    assert images.samples == features.samples
