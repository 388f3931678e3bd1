"""Train a GAN on a folder of images, on whatever machines you have."""

__version__ = "0.1.0"
