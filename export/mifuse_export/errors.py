"""What can go wrong in an export."""

from mifuse_runtime.errors import MifuseError


class ExportError(MifuseError):
    """The model cannot be exported, or its export is not as good as the model."""
