"""The sampler of a student as a graph of `torch.export`."""

from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config


class StudentGraph(ModelMixin, ConfigMixin):
    """`(noise (B, C, H, W), labels (B,), step_noise (B, steps - 1, C, H, W))` -> images in [-1, 1]."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, shape=(3, 32, 32), num_classes=0, steps=1, added_noises=0, largest_batch=63):
        super().__init__()
        self.graph = None

    @classmethod
    def from_pretrained(cls, folder, **_):
        model = cls.from_config(cls.load_config(folder))
        model.graph = torch.export.load(str(Path(folder) / "sampler.pt2")).module()
        return model

    def save_pretrained(self, folder, **_):
        raise NotImplementedError("copy the folder instead")

    @torch.no_grad()
    def forward(self, noise, labels=None, step_noise=None):
        given = {"labels": labels, "step_noise": step_noise}
        given = {name: value for name, value in given.items() if value is not None}
        size, parts = self.config.largest_batch, []
        for first in range(0, len(noise), size):
            part = {name: value[first : first + size] for name, value in given.items()}
            parts.append(self.graph(noise[first : first + size], **part))
        return torch.cat(parts)
