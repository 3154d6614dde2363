"""TRACT's experiments (Berthelot et al. 2023, arXiv 2303.04248), as the authors' programs run them (apple/ml-tract)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tract_ray.distillation import TractConfig, TractEDMConfig
from tract_ray.training.recipes.recipe import Recipe
from tract_ray.training.recipes.teachers import BTD_CIFAR10, BTD_IMAGENET64, EDM_CIFAR10, EDM_IMAGENET64
from tract_ray.training.run_config import EvaluationConfig, NetworkConfig

MEASURED = "pytorch-fid's Inception weights, torch's bilinear resizing, 50,000 images, labels drawn"
EVALUATION = EvaluationConfig(features="inception_legacy_pytorch", samples=50_000, rung_samples=5_000, labels="random")

VP: dict[str, Any] = {
    "time_schedule": (1024, 32, 1),
    "samples": 96 << 20,
    "batch": 256,
    "lr": 2e-4,
    "mu_s": 0.5,
    "mu_i_residual": 1e-3,
    "weighting": "truncated_snr",
    "loss_reduction": "sum",
    "clip_norm": 1.0,
    "clip_x0": "all",
    "student_init": "continue",
    "keep_optimizer": True,
    "keep_averages": True,
    "boundary": "after",
}
VP_SOURCES = {
    "time_schedule": "README's command, paper section 4",
    "samples": "README's command (--train_len=96M; M is 2^20)",
    "batch": "lib/data/data.py",
    "lr": "tc_distill.py; paper, section 4",
    "mu_s": "tc_distill.py (sema); paper, section 4.2",
    "mu_i_residual": "tc_distill.py (ema_residual, steps of a phase); 1e-4 over the run fits the paper's mu_i [U]",
    "weighting": "tc_distill.py: max(SNR, 1); the paper writes SNR",
    "loss_reduction": "tc_distill.py: sum over pixels, mean over the batch",
    "clip_norm": "tc_distill.py: 1, on the scale of the sum",
    "clip_x0": "tc_distill.py; not in the paper",
    "student_init": "tc_distill.py: at a phase's start only the teacher changes; the paper restarts the student [U]",
    "keep_optimizer": "tc_distill.py: one Adam for the whole run",
    "keep_averages": "tc_distill.py: reset=none by default",
    "boundary": "tc_distill.py: int(progress (1 - 1e-9) phases)",
    "network": "tc_distill.py; the teacher is BTD's released one, dropout off",
    "evaluation": "fid/README.md",
}
NOTES = (
    "the order of the images is ours: no program's order can be had from another's",
    "the authors replace NaN in states after each step by 0; here nothing is replaced",
)

EDM: dict[str, Any] = {
    "time_schedule": (40, 1),
    "samples": 96 << 20,
    "batch": 512,
    "lr": 1e-3,
    "mu_s": 0.5,
    "mu_i_residual": 1e-3,
    "weighting": "edm",
    "solver": "heun",
    "loss_reduction": "mean",
    "clip_norm": None,
    "replace_nonfinite": True,
    "clip_x0": "self_teacher",
}
EDM_SOURCES = {
    "time_schedule": "README's command",
    "samples": "README's command (--train_len=96M)",
    "batch": "README's command (--batch=512)",
    "lr": "tc_distill_edm.py, constant (lr_warmup is None)",
    "mu_s": "tc_distill_edm.py (sema)",
    "mu_i_residual": "tc_distill_edm.py (ema_residual)",
    "weighting": "tc_distill_edm.py: EDM's weight, 1 in F-space",
    "solver": "tc_distill_edm.py: the teacher takes Heun's step, the self-teacher DDIM's",
    "loss_reduction": "tc_distill_edm.py: mean over pixels",
    "clip_norm": "tc_distill_edm.py: no clipping",
    "replace_nonfinite": "tc_distill_edm.py: NaN 0, infinities 1e5",
    "clip_x0": "tc_distill_edm.py: in the self-teacher's step alone",
    "network": "tc_distill_edm.py: edm-cifar10-32x32-uncond-ve, edm-imagenet-64x64-cond-adm, dropout 0",
    "evaluation": "fid/README.md",
}

CIFAR10 = Recipe(
    name="tract-cifar10",
    what="TRACT 1024,32,1 from BTD's teacher of CIFAR-10, 96M images",
    teacher=BTD_CIFAR10.teacher,
    method=TractConfig(**VP),
    evaluation=EVALUATION,
    published="FID 5.02 in 1 step (table 1)",
    measured_with=MEASURED,
    sources=VP_SOURCES,
    notes=NOTES,
)
EDM_RECIPE = Recipe(
    name="tract-edm-cifar10",
    what="TRACT 40,1 from EDM's unconditional VE teacher of CIFAR-10, 96M images",
    teacher=EDM_CIFAR10.teacher,
    method=TractEDMConfig(**EDM),
    evaluation=EVALUATION,
    published="FID 4.17 in 1 step; 3.78 with 256M images",
    measured_with=MEASURED,
    sources=EDM_SOURCES,
    notes=(*NOTES, "the authors' student drops the weights of augmentation labels, which are unused here too"),
)
UNSAID = dict.fromkeys(("batch", "lr"), "as on CIFAR-10; the command for ImageNet is not published [U]")

TRACT = (
    CIFAR10,
    replace(
        CIFAR10,
        name="tract-cifar10-256m",
        what="the same with 256M images",
        method=replace(CIFAR10.method, samples=256 << 20),
        published="FID 4.45 in 1 step (table 1); 3.32 in 2 [U]",
        sources={**VP_SOURCES, "samples": "paper, table 1 (M is 2^20)"},
    ),
    replace(
        CIFAR10,
        name="tract-imagenet64",
        what="TRACT 1024,32,1 from BTD's conditional teacher of ImageNet-64, 96M images",
        teacher=BTD_IMAGENET64.teacher,
        published="FID 7.43 in 1 step, 4.97 in 2, 2.93 in 4, 2.41 in 8",
        sources={**VP_SOURCES, **UNSAID},
    ),
    EDM_RECIPE,
    replace(
        EDM_RECIPE,
        name="tract-edm-imagenet64",
        what="TRACT 40,1 from EDM's ADM teacher of ImageNet-64, 96M images",
        teacher=EDM_IMAGENET64.teacher,
        published="FID 7.52 in 1 step",
        sources={**EDM_SOURCES, **UNSAID},
    ),
    replace(
        CIFAR10,
        name="kd-60m-19m",
        what="knowledge distillation of BTD's teacher of CIFAR-10 into 19.4M parameters",
        method=TractConfig(**{**VP, "time_schedule": (1024, 32, 32, 1), "samples": 336 << 20}),
        students=(None, NetworkConfig(name="unet_cifar10_small"), None),
        published="FID 6.47 in 1 step (60.0M: 5.02)",
        sources={
            **VP_SOURCES,
            "time_schedule": "paper: 1024,32,32,1, the phase of equal steps into the small network [U]",
            "samples": "paper: 336M [U]",
            "students": "paper, section 4.4: 19.4M parameters; the architecture by their number",
        },
        notes=(
            *NOTES,
            "no program of it is public: phases of equal length; the small network starts from the layers that it "
            "shares with the large one, with fresh moments and averages",
        ),
    ),
)
