"""Teachers: BTD's (google-research/diffusion_distillation, config/*_base.py) and EDM's (NVlabs/edm, train.py)."""

from __future__ import annotations

from typing import Any

from tract_ray.distillation import DenoisingConfig
from tract_ray.training.recipes.by_data import PAPER_TEACHER
from tract_ray.training.recipes.recipe import Recipe
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig, TeacherConfig

EVALUATION = EvaluationConfig(features="inception_legacy_tensorflow", samples=50_000, labels="random")
EDM_HALF_LIFE = 500_000  # images


def _recipe(teacher: TeacherConfig, **about: Any) -> Recipe:
    return Recipe(teacher=teacher, method=teacher.training, evaluation=EVALUATION, **about)


def _btd(dataset: str, network: str, dropout: float, **training: Any) -> TeacherConfig:
    return TeacherConfig(
        dataset=dataset,
        network=NetworkConfig(name=network, options={"dropout": dropout}),
        conditional=dataset == "imagenet64",
        training=DenoisingConfig(**{**PAPER_TEACHER, **training}),
    )


BTD_SOURCES = {
    "batch": "config/cifar_base.py",
    "lr": "config/cifar_base.py",
    "warmup": "config/cifar_base.py: learning_rate_warmup_steps",
    "weight_decay": "config/cifar_base.py; flax's Adam decays as AdamW does",
    "ema": "config/cifar_base.py; not bias-corrected there",
    "clip_norm": "config/cifar_base.py",
    "weighting": "config/cifar_base.py: snr_trunc",
    "prediction": "config/cifar_base.py: mean_type",
    "samples": "paper, appendix: 800,000 updates [U]",
    "network": "config/cifar_base.py, dropout 0.2",
}
BTD_CIFAR10 = _recipe(
    _btd("cifar10", "unet_cifar10", 0.2, prediction="x0"),
    name="btd-teacher-cifar10",
    what="BTD's and TRACT's teacher of CIFAR-10; the released one can be imported",
    sources=BTD_SOURCES,
)
BTD_IMAGENET64 = _recipe(
    _btd(
        "imagenet64",
        "unet_imagenet64",
        0.1,
        prediction="both",
        batch=2048,
        lr=3e-4,
        weight_decay=0.0,
        samples=550_000 * 2048,
    ),
    name="btd-teacher-imagenet64",
    what="BTD's and TRACT's conditional teacher of ImageNet-64; the released one can be imported",
    sources={
        **{name: text.replace("cifar", "imagenet64") for name, text in BTD_SOURCES.items()},
        "network": "config/imagenet64_base.py, dropout 0.1",
        "samples": "paper, appendix: 550,000 updates [U]",
    },
)


def _edm(dataset: str, network: str, options: dict[str, Any], **training: Any) -> TeacherConfig:
    batch = training["batch"]
    return TeacherConfig(
        dataset=dataset,
        network=NetworkConfig(name=network, options=options),
        conditional=dataset == "imagenet64",
        training=DenoisingConfig(
            prediction="edm",
            schedule="ve_karras",
            weighting="edm",
            loss_reduction="sum",
            clip_norm=None,
            replace_nonfinite=True,
            warmup=10_000_000 // batch,
            **training,
        ),
    )


EDM_SOURCES = {
    "samples": "train.py: --duration=200; EDM's M is 10^6 images",
    "batch": "train.py: --batch",
    "lr": "train.py: --lr",
    "warmup": "training_loop.py: lr_rampup_kimg 10,000",
    "loss_reduction": "training_loop.py: sum over pixels, mean over the batch",
    "clip_norm": "training_loop.py: none",
    "replace_nonfinite": "training_loop.py",
    "ema": "train.py: half-life of 0.5M images, not bias-corrected but ramped up",
    "weighting": "loss.py: EDMLoss",
    "network": "train.py: --arch=ncsnpp, --dropout=0.13; its augmentation (0.12) is missing here",
}
EDM_CIFAR10 = _recipe(
    _edm(
        "cifar10",
        "edm_cifar10_ncsnpp",
        {"dropout": 0.13, "augment_dim": 0},
        samples=200_000_000,
        batch=512,
        lr=1e-3,
        ema=0.5 ** (512 / EDM_HALF_LIFE),
    ),
    name="edm-cifar10",
    what="EDM's unconditional VE teacher of CIFAR-10 without its augmentation; the released one can be imported",
    published="FID 1.98 in 35 network calls [U] (VP: 1.97)",
    measured_with="TensorFlow-port Inception weights, 50,000 images, the minimum of three",
    sources=EDM_SOURCES,
    notes=("without augmentation the published distance is out of reach: use the released teacher",),
)
EDM_IMAGENET64 = _recipe(
    _edm(
        "imagenet64",
        "edm_imagenet64_adm",
        {"dropout": 0.1},
        samples=2_500_000_000,
        batch=4096,
        lr=1e-4,
        ema=0.5 ** (4096 / 50_000_000),
    ),
    name="edm-imagenet64",
    what="EDM's conditional ADM teacher of ImageNet-64; the released one can be imported",
    published="FID 1.36 in 79 network calls [U]",
    measured_with="TensorFlow-port Inception weights, 50,000 images, the minimum of three",
    sources={
        **EDM_SOURCES,
        "samples": "README's command: --duration=2500",
        "batch": "README's command: --batch=4096",
        "lr": "README's command: --lr=1e-4",
        "ema": "README's command: half-life of 50M images",
        "network": "README's command: --arch=adm, --dropout=0.10, --augment=0",
    },
)
TEACHERS = (BTD_CIFAR10, BTD_IMAGENET64, EDM_CIFAR10, EDM_IMAGENET64)
