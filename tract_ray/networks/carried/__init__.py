"""Files that go with an exported student and run without this package: they import torch and diffusers alone."""
