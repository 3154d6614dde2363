"""EDM's pickles: weights arrive where they belong, and what does not fit is named."""

from __future__ import annotations

import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from imported import model_folder, randomised
from torch import nn

from tract_ray.config import InputError
from tract_ray.networks import build_network
from tract_ray.networks.importing import import_teacher

EDM_CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "ddpmpp": (
        "edm_cifar10_ddpmpp",
        {"channels": 16, "multipliers": (1, 2), "blocks": 1},
        {"model_type": "SongUNet", "model_channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "augment_dim": 9},
    ),
    "ncsnpp": (
        "edm_cifar10_ncsnpp",
        {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "augment_dim": 0},
        {
            "model_type": "SongUNet",
            "embedding_type": "fourier",
            "encoder_type": "residual",
            "channel_mult_noise": 2,
            "resample_filter": [1, 3, 3, 1],
            "model_channels": 16,
            "channel_mult": [1, 2],
            "num_blocks": 1,
            "attn_resolutions": [8],
        },
    ),
    "adm": (
        "edm_imagenet64_adm",
        {"channels": 64, "multipliers": (1, 1), "blocks": 1},
        {"model_type": "DhariwalUNet", "model_channels": 64, "channel_mult": [1, 1], "num_blocks": 1},
    ),
}


@pytest.fixture
def persistence(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes a network as EDM's snapshots hold one: records of class name, source code and attributes.

    The modules that such a pickle names exist only while it is written, as on the machine that trained the network.
    """
    helper = types.ModuleType("torch_utils.persistence")
    easy = types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("a pickle's own reconstruction was called")

    class EasyDict(dict[str, Any]):
        pass

    for function, module in ((_reconstruct_persistent_obj, helper), (EasyDict, easy)):
        function.__module__, function.__qualname__ = module.__name__, function.__name__
        setattr(module, function.__name__, function)

    class Persistent:
        def __init__(self, class_name: str, state: dict[str, Any]) -> None:
            self.meta = {"type": "class", "version": 6, "class_name": class_name, "state": state}

        def __reduce__(self) -> Any:
            return _reconstruct_persistent_obj, ({**self.meta, "module_src": "raise SystemExit('executed')"},)

    def record(module: nn.Module, class_name: str, **extra: Any) -> Persistent:
        children: Any = OrderedDict()
        for name, child in module.named_children():
            children[name] = container(child) if isinstance(child, nn.ModuleDict) else record(child, "Layer")
        state = {
            "training": False,
            "_parameters": OrderedDict(module._parameters),
            "_buffers": OrderedDict(module._buffers),
            "_non_persistent_buffers_set": set(),
            "_modules": children,
            "skip_scale": np.sqrt(0.5),
            **extra,
        }
        return Persistent(class_name, state)

    def container(module: nn.ModuleDict) -> nn.ModuleDict:
        # The one class of torch itself in these files; its children are records, which no real ModuleDict takes.
        copied = nn.ModuleDict()
        copied._modules = OrderedDict((name, record(child, "Block")) for name, child in module.items())  # type: ignore[assignment]
        return copied

    def write(path: Path, network: nn.Module, size: int, classes: int, arguments: dict[str, Any], **outer: Any) -> Path:
        kwargs = dict(arguments)
        inner = {
            "img_resolution": size,
            "in_channels": 3,
            "out_channels": 3,
            "label_dim": classes,
            "dropout": 0.13,
            **{k: v for k, v in kwargs.items() if k != "model_type"},
        }
        model = record(network, kwargs["model_type"], _init_args=(), _init_kwargs=EasyDict(inner))
        precond = {"class_name": "EDMPrecond", "sigma_data": 0.5, **outer}
        class_name = precond.pop("class_name")
        ema = record(nn.Module(), class_name, **precond)
        ema.meta["state"]["_modules"] = OrderedDict(model=model)
        data = {"ema": ema, "loss_fn": Persistent("EDMLoss", {"P_mean": -1.2}), "augment_pipe": None}
        parents = [types.ModuleType("torch_utils"), types.ModuleType("dnnlib")]
        with monkeypatch.context() as while_training:
            for module in (*parents, helper, easy):
                while_training.setitem(sys.modules, module.__name__, module)
            path.write_bytes(pickle.dumps(data, protocol=4))
        return path

    return write


@pytest.mark.parametrize("case", EDM_CASES)
def test_an_edm_pickle_becomes_the_same_network(tmp_path: Path, persistence: Any, case: str) -> None:
    preset, options, arguments = EDM_CASES[case]
    network = randomised(build_network(preset, (3, 16, 16), num_classes=4, options=options))
    path = persistence(tmp_path / "teacher.pkl", network, 16, 4, arguments)
    teacher = import_teacher(path)
    assert (teacher.network, teacher.shape, teacher.num_classes) == (preset, (3, 16, 16), 4)
    assert (teacher.schedule, teacher.prediction) == ("ve_karras", "edm")
    assert teacher.options == options
    x, logsnr, labels = torch.randn(2, 3, 16, 16), torch.tensor([5.0, -6.0]), torch.tensor([3, -1])
    expected = network(x, logsnr, labels)
    assert torch.equal(teacher.build()(x, logsnr, labels), expected)
    folder = model_folder(path, tmp_path / "folder")
    assert (folder.steps, folder.num_classes) == (18, 4)  # of images up to 32x32
    assert torch.equal(folder.denoiser.module(x, logsnr, labels), expected)
    assert teacher.denoiser()(x.double(), torch.tensor([0.5, 20.0]), labels).shape == x.shape


@pytest.fixture
def small_edm() -> nn.Module:
    preset, options, _ = EDM_CASES["ddpmpp"]
    return build_network(preset, (3, 16, 16), options=options)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda n: n.enc.pop("16x16_block0"), r"weight enc\.16x16_block0\.\S+ .* is missing"),
        (lambda n: n.register_buffer("extra", torch.zeros(1)), "has no weight extra"),
        (lambda n: setattr(n.map_layer0, "weight", nn.Parameter(torch.zeros(2, 2))), r"map_layer0.weight has shape"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, persistence: Any, small_edm: nn.Module, break_it: Any, message: str
) -> None:
    break_it(small_edm)
    path = persistence(tmp_path / "teacher.pkl", small_edm, 16, 0, EDM_CASES["ddpmpp"][2])
    with pytest.raises(InputError, match=message):
        import_teacher(path)


@pytest.mark.parametrize(
    ("outer", "message"), [({"class_name": "VPPrecond"}, "VPPrecond"), ({"sigma_data": 1.0}, "sigma_data must be 0.5")]
)
def test_other_preconditioning_is_refused(
    tmp_path: Path, persistence: Any, small_edm: nn.Module, outer: dict[str, Any], message: str
) -> None:
    path = persistence(tmp_path / "teacher.pkl", small_edm, 16, 0, EDM_CASES["ddpmpp"][2], **outer)
    with pytest.raises(InputError, match=message):
        import_teacher(path)
