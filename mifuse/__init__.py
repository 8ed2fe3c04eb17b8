"""Speech emotion recognition in your domain, without labels: adapt a compact student by MI-Fuse."""

from mifuse_runtime import __version__

__all__ = ["__version__"]
