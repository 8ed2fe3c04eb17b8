"""Who exported a bundle: the signature of its files, by the OpenSSF's `model-signing`; no network is used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mifuse_runtime.errors import BundleError, MifuseError

NAME = "model.sig"  # as model-signing calls it
UNSIGNED = (NAME, "README.md", "timing.json")  # what people and hubs edit, and no runtime reads
MISSING = (
    "signatures need the package model-signing: pip install 'mifuse-runtime[signing]' or 'mifuse[signing]'"
)


def check(folder: str | Path, public_key: str | Path) -> None:
    """Check that the owner of a key signed the bundle as it is: these files with this content, no other.

    Args:
        public_key: PEM file of the elliptic-curve key that belongs to the one of `mifuse export --sign`.

    Raises:
        MifuseError: model-signing is not installed, or the key cannot be used.
        BundleError: there is no signature, or another key or other files were signed.
    """
    folder, public_key = Path(folder), Path(public_key)
    if not (folder / NAME).is_file():
        raise BundleError(f"{folder} has no {NAME}: it is not signed, export it with --sign")
    try:
        from model_signing import verifying
    except ImportError as error:
        raise MifuseError(MISSING) from error
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # of cryptography, whose errors share no base class
        raise MifuseError(
            f"{public_key} is not a public key of an elliptic curve ({_line(error)}): give its PEM file"
        ) from error
    try:
        verifier.set_hashing_config(covered()).verify(folder, folder / NAME)
    except Exception as error:  # likewise
        raise BundleError(
            f"{folder} is not as the owner of {public_key} signed it ({_line(error)}): copy it again or "
            "ask who made it"
        ) from error


def covered() -> Any:
    """What model-signing hashes of a bundle's folder, to sign and to check it."""
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=UNSIGNED).set_allow_symlinks(True)  # hubs store files so


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
