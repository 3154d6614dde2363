"""Public teachers: weights arrive where they belong, and a pickle runs nothing."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from typer.testing import CliRunner

from tract_ray.cli.command import app
from tract_ray.config import InputError
from tract_ray.networks import NetworkPreset, UNet, build_network, presets
from tract_ray.networks.diffusers_unet import nearest_timestep
from tract_ray.networks.importing import import_teacher
from tract_ray.training import Model, load_model

torch.set_num_threads(1)

# --- EDM pickles -----------------------------------------------------------------------------------------------------

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


def randomised(network: nn.Module, seed: int = 1) -> nn.Module:
    """Fresh networks end in zeros, which would agree with anything."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for weight in network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return network.eval()


def model_folder(source: Path, folder: Path, *options: str) -> Model:
    """What `tract-ray import-teacher` makes of a file."""
    arguments = ["import-teacher", str(source), "--out", str(folder), *options]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    return load_model(folder)


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
    assert (folder.steps, folder.num_classes) == (40, 4)
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


class Runs:
    """Pickles to a call of `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("attack", ["system", "eval", "getattr", "torch.load", "nested"])
def test_a_pickle_that_runs_code_is_refused_by_name_and_runs_nothing(tmp_path: Path, attack: str) -> None:
    marker = tmp_path / "marker"
    touch = Runs(os.system, f"touch {marker}")
    data, name = {
        "system": (touch, f"{os.system.__module__}.system"),
        "eval": (Runs(eval, f"open({str(marker)!r}, 'w')"), "builtins.eval"),
        "getattr": (Runs(getattr, "", "join"), "builtins.getattr"),
        "torch.load": (Runs(torch.load, str(marker)), "torch.serialization.load"),
        "nested": ({"ema": [OrderedDict(a=touch)]}, f"{os.system.__module__}.system"),
    }[attack]
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(data, protocol=4))
    with pytest.raises(InputError, match=f"asks for {name}"):
        import_teacher(path)
    assert not marker.exists()


def test_code_inside_a_tensors_bytes_does_not_run(tmp_path: Path) -> None:
    marker, inner = tmp_path / "marker", tmp_path / "inner"
    torch.save(Runs(os.system, f"touch {marker}"), inner, _use_new_zipfile_serialization=False)
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(Runs(torch.storage._load_from_bytes, inner.read_bytes()), protocol=4))
    with pytest.raises(InputError, match="pickle"):
        import_teacher(path)
    assert not marker.exists()


@pytest.mark.parametrize(("size", "stride"), [((5,), (1,)), ((2, 2), (3, 1)), ((10**12,), (0,)), ((2,), (-1,))])
def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    memory = torch.zeros(4).untyped_storage()
    storage = torch.storage.TypedStorage(wrap_storage=memory, dtype=torch.float32, _internal=True)
    rebuild = Runs(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, {})
    path = tmp_path / "teacher.pkl"
    path.write_bytes(pickle.dumps(rebuild, protocol=4))
    with pytest.raises(InputError, match="beyond its storage"):
        import_teacher(path)


# --- Flax checkpoints ------------------------------------------------------------------------------------------------

FLAX = {"channels": 128, "embedding": 32, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_width": 64}


class FlaxUNet:
    """The authors' U-Net as a function of its tree of weights, written down once more from their layout.

    Images are `(B, H, W, C)`. With no tree given it draws one, which fixes the names and shapes of every weight.
    """

    def __init__(self, tree: dict[str, Any] | None = None) -> None:
        self.drawing = tree is None
        self.tree: dict[str, Any] = {} if tree is None else tree
        self.random = np.random.default_rng(0)

    def leaf(self, path: str, name: str, shape: tuple[int, ...], mean: float = 0.0) -> Tensor:
        node = self.tree
        for part in path.split("/"):
            node = node.setdefault(part, {})
        if self.drawing:
            fan_in = math.prod(shape[:-1]) if name == "kernel" else 100
            node[name] = (mean + self.random.normal(size=shape) / math.sqrt(fan_in)).astype(np.float32)
        return torch.from_numpy(np.array(node[name])).reshape(shape)

    def norm(self, path: str, x: Tensor) -> Tensor:
        grouped = x.reshape(len(x), -1, 32, x.shape[-1] // 32)
        mean, var = grouped.mean((1, 3), keepdim=True), grouped.var((1, 3), unbiased=False, keepdim=True)
        out = ((grouped - mean) / torch.sqrt(var + 1e-6)).reshape(x.shape)
        width = (x.shape[-1],)
        return out * self.leaf(path, "scale", width, mean=1.0) + self.leaf(path, "bias", width)

    def dense(self, path: str, x: Tensor, out: int) -> Tensor:
        return x @ self.leaf(path, "kernel", (x.shape[-1], out)) + self.leaf(path, "bias", (out,))

    def conv(self, path: str, x: Tensor, out: int) -> Tensor:
        kernel = self.leaf(path, "kernel", (3, 3, x.shape[-1], out))
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        height, width = x.shape[1:3]
        shifted = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
        return torch.stack(list(shifted)).sum(0) + self.leaf(path, "bias", (out,))

    def block(self, path: str, x: Tensor, embedding: Tensor, out: int, resample: str = "") -> Tensor:
        def resampled(z: Tensor) -> Tensor:
            if resample == "down":
                return (z[:, ::2, ::2] + z[:, 1::2, ::2] + z[:, ::2, 1::2] + z[:, 1::2, 1::2]) / 4
            return z.repeat_interleave(2, 1).repeat_interleave(2, 2) if resample else z

        h = self.conv(f"{path}/conv1", resampled(F.silu(self.norm(f"{path}/norm1", x))), out)
        film = self.dense(f"{path}/temb_proj", F.silu(embedding), 2 * out)[:, None, None]
        h = self.norm(f"{path}/norm2", h) * (1 + film[..., :out]) + film[..., out:]
        h = self.conv(f"{path}/conv2", F.silu(h), out)
        x = resampled(x)
        return h + (self.dense(f"{path}/nin_shortcut", x, out) if x.shape[-1] != out else x)

    def attention(self, path: str, x: Tensor, width: int) -> Tensor:
        channels = x.shape[-1]
        heads = channels // width
        h = self.norm(f"{path}/norm", x).flatten(1, 2)
        q, k, v = (
            torch.einsum("bpc,chd->bphd", h, self.leaf(f"{path}/{n}", "kernel", (channels, heads, width)))
            + self.leaf(f"{path}/{n}", "bias", (heads, width))
            for n in "qkv"
        )
        weights = torch.softmax(torch.einsum("bphd,bqhd->bhpq", q, k) / math.sqrt(width), dim=-1)
        kernel = self.leaf(f"{path}/proj_out", "kernel", (heads, width, channels))
        out = torch.einsum("bhpq,bqhd,hdc->bpc", weights, v, kernel) + self.leaf(
            f"{path}/proj_out", "bias", (channels,)
        )
        return x + out.reshape(x.shape)

    def __call__(self, x: Tensor, logsnr: Tensor, labels: Tensor, out: int) -> Tensor:
        channels, multipliers, width = FLAX["channels"], FLAX["multipliers"], FLAX["head_width"]
        level = torch.atan(torch.exp(-0.5 * logsnr)) / (math.pi / 2)
        frequencies = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
        angles = 1000 * level[:, None] * frequencies
        emb = self.dense("dense0", torch.cat([angles.sin(), angles.cos()], 1), FLAX["embedding"])
        emb = self.dense("dense1", F.silu(emb), FLAX["embedding"])
        emb = emb + self.dense("class_emb", F.one_hot(labels, 3).float(), FLAX["embedding"])
        h = self.conv("conv_in", x, channels)
        skips = [h]
        for i, multiplier in enumerate(multipliers):
            h = self.block(f"down_{i}.block_0", h, emb, channels * multiplier)
            h = self.attention(f"down_{i}.attn_0", h, width) if h.shape[1] in FLAX["attention"] else h
            skips.append(h)
            if i < len(multipliers) - 1:
                h = self.block(f"down_{i}.downsample", h, emb, h.shape[-1], "down")
                skips.append(h)
        h = self.block("mid.block_1", h, emb, h.shape[-1])
        h = self.attention("mid.attn_1", h, width)
        h = self.block("mid.block_2", h, emb, h.shape[-1])
        for i, multiplier in reversed(list(enumerate(multipliers))):
            for j in range(2):
                h = self.block(f"up_{i}.block_{j}", torch.cat([h, skips.pop()], -1), emb, channels * multiplier)
                h = self.attention(f"up_{i}.attn_{j}", h, width) if h.shape[1] in FLAX["attention"] else h
            h = self.block(f"up_{i}.upsample", h, emb, h.shape[-1], "up") if i else h
        return self.conv("conv_out", F.silu(self.norm("norm_out", h)), out)


def write_flax(path: Path, tree: dict[str, Any], *, old_norms: bool = False, chunked: str = "") -> Path:
    """As flax serialises a training state: arrays are extension 1, `(shape, type, bytes)`, large ones in chunks."""
    msgpack = pytest.importorskip("msgpack")

    def encode(array: np.ndarray[Any, Any]) -> Any:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))

    def encoded(node: Any, place: str) -> Any:
        if isinstance(node, dict):
            return {name: encoded(value, f"{place}/{name}") for name, value in node.items()}
        if old_norms and "norm" in place:
            node = node[None, None, None]
        if place.strip("/") == chunked:
            pieces = np.array_split(node.reshape(-1), 3)
            shape = {str(i): size for i, size in enumerate(node.shape)}
            chunks = {str(i): encode(piece) for i, piece in enumerate(pieces)}
            return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}
        return encode(node)

    state = {"step": 7, "optimizer": None, "ema_params": encoded(tree, ""), "num_sample_steps": 0}
    path.write_bytes(msgpack.packb(state, use_bin_type=True))
    return path


@pytest.fixture(scope="module")
def flax_tree() -> dict[str, Any]:
    reference = FlaxUNet()
    reference(torch.zeros(1, 8, 8, 3), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 6)
    return reference.tree


@pytest.mark.parametrize(("old_norms", "chunked"), [(False, ""), (True, "down_1.block_0/conv1/kernel")])
def test_a_flax_checkpoint_becomes_the_same_network(
    tmp_path: Path, flax_tree: dict[str, Any], old_norms: bool, chunked: str
) -> None:
    path = write_flax(tmp_path / "checkpoint_0", flax_tree, old_norms=old_norms, chunked=chunked)
    teacher = import_teacher(path, image_size=8, prediction="both")
    assert (teacher.shape, teacher.num_classes) == ((3, 8, 8), 3)
    assert (teacher.schedule, teacher.prediction) == ("vp_cosine", "both")
    x, logsnr, labels = torch.randn(2, 3, 8, 8), torch.tensor([3.0, -4.0]), torch.tensor([2, 0])
    expected = FlaxUNet(flax_tree)(x.permute(0, 2, 3, 1), logsnr, labels, 6).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = teacher.build()(x, logsnr, labels)
        folder = model_folder(path, tmp_path / "folder", "--image-size", "8", "--prediction", "both")
        again = folder.denoiser.module(x, logsnr, labels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(again, found)
    assert (folder.steps, folder.num_classes, folder.denoiser.prediction) == (1024, 3, "both")


def test_the_architecture_of_a_preset_needs_no_further_word(
    tmp_path: Path, flax_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets, "published", NetworkPreset(UNet, (3, 8, 8), FLAX, prediction="both"))
    teacher = import_teacher(write_flax(tmp_path / "checkpoint_0", flax_tree))
    assert (teacher.network, teacher.options, teacher.prediction) == ("published", {}, "both")
    assert teacher.shape == (3, 8, 8)


def test_flax_weights_that_do_not_fit_are_named(tmp_path: Path, flax_tree: dict[str, Any]) -> None:
    def changed(name: str, value: Any) -> Path:
        return write_flax(tmp_path / "checkpoint_0", {**flax_tree, name: value})

    with pytest.raises(InputError, match="no place for the flax weight stray/kernel"):
        import_teacher(changed("stray", {"kernel": np.zeros(3)}), image_size=8, prediction="both")
    partial = {k: v for k, v in flax_tree["up_1.block_0"].items() if k != "conv1"}
    with pytest.raises(InputError, match=r"weight up\.0\.0\.conv1\.weight .* is missing"):
        import_teacher(changed("up_1.block_0", partial), image_size=8, prediction="both")
    with pytest.raises(InputError, match=r"conv_out\.weight has shape"):
        import_teacher(changed("stray", {}), image_size=8, prediction="v")
    with pytest.raises(InputError, match="give image_size and prediction"):
        import_teacher(changed("stray", {}))
    with pytest.raises(InputError, match="conv_in/kernel is missing"):
        import_teacher(changed("conv_in", {}))


# --- diffusers folders -----------------------------------------------------------------------------------------------

TINY_UNET2D = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_diffusers_folder_becomes_the_same_network(tmp_path: Path, pipeline: bool, num_classes: int) -> None:
    library = pytest.importorskip("diffusers")
    model = randomised(library.UNet2DModel(**TINY_UNET2D, num_class_embeds=num_classes or None))
    scheduler = library.DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    if pipeline:
        library.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path)
        scheduler.save_pretrained(tmp_path)
    teacher = import_teacher(tmp_path)
    assert (teacher.network, teacher.shape, teacher.num_classes) == ("diffusers_unet", (1, 8, 8), num_classes)
    assert (teacher.schedule, teacher.prediction) == ("vp_cosine", "eps")
    json.dumps(teacher.options)  # a configuration is plain data
    timestep = torch.tensor([70, 3])
    gamma = scheduler.alphas_cumprod[timestep].double()
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([2, 0]) if num_classes else None
    with torch.inference_mode():
        expected = model(x, timestep, class_labels=labels).sample
        found = teacher.build()(x, torch.log(gamma / (1 - gamma)), labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_timesteps_are_where_the_table_has_the_logsnr() -> None:
    table = torch.tensor([9.0, 5.0, 3.0, -6.0], dtype=torch.float64)
    found = nearest_timestep(table, torch.tensor([20.0, 9.0, 7.0, 3.0, 0.0, -6.0, -20.0]))
    torch.testing.assert_close(found, torch.tensor([0, 0, 0.5, 2, 2 + 1 / 3, 3, 3], dtype=torch.float64))


def test_diffusers_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers")
    with pytest.raises(InputError, match=r"no config\.json"):
        import_teacher(tmp_path)
    library.UNet2DModel(**TINY_UNET2D).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="scheduler_config"):
        import_teacher(tmp_path)
    library.DDPMScheduler().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_in.bias")
    save_file(weights, file)
    with pytest.raises(InputError, match=r"model\.conv_in\.bias \[8\] of diffusers_unet is missing"):
        import_teacher(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "sample_size": None}))
    with pytest.raises(InputError, match="does not say its sample_size; give image_size"):
        import_teacher(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(InputError, match="did you mean 'UNet2DModel'"):
        import_teacher(tmp_path)


def test_what_is_no_teacher_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("nothing")
    with pytest.raises(InputError, match="neither an EDM pickle"):
        import_teacher(file)
    with pytest.raises(InputError, match="download it first"):
        import_teacher("gs://bucket/teacher.pkl")
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(pickle.dumps({"ema": 1}, protocol=4)[:-4])
    with pytest.raises(InputError, match=r"broken\.pkl cannot be read"):
        import_teacher(broken)
    broken.write_bytes(pickle.dumps({"ema": 1}, protocol=4))
    with pytest.raises(InputError, match="no network under 'ema'"):
        import_teacher(broken)
