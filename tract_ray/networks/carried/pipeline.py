"""Samples a student that tract-ray distilled, without tract-ray: noise and labels in, images out."""

import math

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

MASK = 0xFFFFFFFF


def philox(words, key):
    """Philox4x32-10: four random 32-bit words for a counter of four and a key of two."""
    (c0, c1, c2, c3), (k0, k1) = words, key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (p1 >> 32 & MASK) ^ c1 ^ k0, p1 & MASK, (p0 >> 32 & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = k0 + 0x9E3779B9 & MASK, k1 + 0xBB67AE85 & MASK
    return c0, c1, c2, c3


def added_noise(noise, step):
    """Standard normal numbers for one step, each image's a function of its `noise` and the step."""
    bits = noise.detach().float().contiguous().view(torch.int32).flatten(1).long()
    size = bits.shape[1]
    seeds = (bits * (2 * torch.arange(size, device=bits.device) + 1)).sum(1, keepdim=True)
    block = torch.arange(-(-size // 4), device=bits.device)[None]
    zero = torch.zeros_like(block)
    words = philox((block, zero + step, zero, zero), (seeds & MASK, seeds >> 32 & MASK))
    parts = []
    for first, second in (words[:2], words[2:]):  # Box and Muller's transform
        radius = torch.sqrt(-2 * torch.log((first.double() + 1) / 2**32))
        angle = 2 * math.pi * (second.double() / 2**32)
        parts += [radius * torch.cos(angle), radius * torch.sin(angle)]
    return torch.cat(parts, dim=1)[:, :size].reshape(noise.shape).float()


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
