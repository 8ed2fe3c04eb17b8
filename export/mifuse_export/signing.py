"""The signature of a bundle with a private key, by the OpenSSF's `model-signing`: offline, no account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mifuse_export.errors import ExportError
from mifuse_runtime.signature import MISSING, NAME, covered


def signer(key: Path) -> Callable[[Path], None]:
    """A function that signs the files of a folder; `mifuse_runtime.signature` checks what it leaves there.

    Args:
        key: PEM file of a private key on P-256, P-384 or P-521, not encrypted; it is read at once.

    Raises:
        ExportError: model-signing is not installed, or the key cannot be used.
    """
    try:
        from model_signing import signing
    except ImportError as error:
        raise ExportError(MISSING) from error
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key)
    except Exception as error:  # of cryptography; they share no base class, and none shows the key
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise ExportError(
            f"{key} cannot sign ({line}): make a key with `openssl ecparam -name prime256v1 -genkey -noout`"
        ) from error
    config.set_hashing_config(covered())
    return lambda folder: config.sign(folder, folder / NAME)
