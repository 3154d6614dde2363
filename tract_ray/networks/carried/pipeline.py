"""Samples a student that tract-ray distilled, without tract-ray: noise and labels in, images out."""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput


def added_noise(noise, step):
    """Standard normal numbers for one step, each image's a function of its `noise` and the step."""
    bits = noise.detach().cpu().float().contiguous().view(torch.int32).flatten(1).long()
    seeds = (bits * (2 * torch.arange(bits.shape[1]) + 1)).sum(1) * 1_000_003 + step
    draws = [
        torch.randn(noise.shape[1:], generator=torch.Generator().manual_seed(seed & ((1 << 63) - 1)))
        for seed in seeds.tolist()
    ]
    return torch.stack(draws)


class TractPipeline(DiffusionPipeline):
    """`pipeline(batch_size, labels=…, generator=…)`; `noise` `(B, C, H, W)` instead of a generator fixes the images."""

    def __init__(self, student):
        super().__init__()
        self.register_modules(student=student)

    @torch.no_grad()
    def __call__(self, batch_size=1, generator=None, labels=None, noise=None, output_type="pil", return_dict=True, **_):
        config = self.student.config
        if noise is None:
            noise = torch.randn(batch_size, *config.shape, generator=generator)
        if config.num_classes:
            labels = torch.arange(len(noise)) % config.num_classes if labels is None else torch.as_tensor(labels)
        elif labels is not None:
            raise ValueError("this student has no classes")
        steps = range(config.steps, 1, -1)[: config.added_noises]
        step_noise = torch.stack([added_noise(noise, step) for step in steps], dim=1) if steps else None
        images = self.student(noise, labels, step_noise)
        if output_type == "pt":
            return ImagePipelineOutput(images=images) if return_dict else (images,)
        images = (images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
