"""The errors that mifuse raises: one root, one line each (what, where, which value, what to do next)."""


class MifuseError(Exception):
    """Anything that the user can put right. Its text is one line and complete."""


class BundleError(MifuseError):
    """The bundle is missing, incomplete, changed or too new."""


class AudioError(MifuseError):
    """The audio is missing, unreadable or not usable."""
