"""Errors of the workstation side. The root is the runtime's, so that one `except MifuseError` catches all."""

from mifuse_runtime.errors import AudioError, MifuseError

__all__ = ["AudioError", "DrawsError", "ManifestError", "MifuseError", "TrainingError"]


class ManifestError(MifuseError):
    """The manifest cannot be used as it is."""


class DrawsError(MifuseError):
    """The draws are missing or are not distributions over the labels."""


class TrainingError(MifuseError):
    """Training cannot start or had to stop."""
