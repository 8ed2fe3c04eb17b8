"""Signatures of bundles: made by the export, checked on the workstation and on the device."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mifuse.cli import main as mifuse
from mifuse.models.student import Student
from mifuse_export import ExportError, card, speed
from mifuse_export.signing import signer
from mifuse_runtime import BundleError, MifuseError
from mifuse_runtime import bundle as bundles
from mifuse_runtime.__main__ import main as device
from mifuse_runtime.signature import NAME, UNSIGNED, check
from tests.bundles import make_bundle

pytestmark = pytest.mark.skipif(
    not find_spec("model_signing"), reason="model-signing is missing: pip install 'mifuse[signing]'"
)


def keys(folder: Path, name: str = "key") -> tuple[Path, Path]:
    """PEM files of a new private key, as openssl writes it, and of its public one."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pem").write_bytes(private)
    (folder / f"{name}.pub").write_bytes(public)
    return folder / f"{name}.pem", folder / f"{name}.pub"


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A signed bundle and the public key."""
    private, public = keys(tmp_path)
    folder = make_bundle(tmp_path / "bundle", precisions=("fp32", "int8"))
    (folder / "README.md").write_text("a card")
    signer(private)(folder)
    return folder, public


def test_signed_bundles_pass_wherever_they_are(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, public = signed
    check(folder, public)
    (folder / "README.md").write_text("edited, as hubs do")
    check(folder, public)
    linked = tmp_path / "as hubs store it"
    linked.mkdir()
    for file in folder.iterdir():
        (linked / file.name).symlink_to(file)
    check(linked, public)
    assert NAME not in bundles.load(folder).files
    assert set(UNSIGNED) == {NAME, card.NAME, speed.NAME}


def test_changes_are_found_that_hashes_vouch_for(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, public = signed
    intact = {file: file.read_bytes() for file in folder.iterdir()}

    def refused() -> str:
        with pytest.raises(BundleError) as caught:
            check(folder, public)
        for file in folder.iterdir():
            file.unlink()
        for file, content in intact.items():
            file.write_bytes(content)
        check(folder, public)
        return str(caught.value)

    content = json.loads((folder / "bundle.json").read_text())
    (folder / "model.onnx").write_bytes(intact[folder / "model.int8.onnx"])
    content["files"]["model.onnx"] = bundles.sha256(folder / "model.onnx")
    (folder / "bundle.json").write_text(json.dumps(content))
    bundles.load(folder)  # the hashes are right
    assert "not as the owner of" in refused()
    (folder / "bundle.json").write_text(json.dumps(content | {"default": "fp32"}))
    assert "bundle.json" in refused()
    (folder / "more.onnx").write_bytes(b"")
    assert "more.onnx" in refused()
    (folder / "model.int8.onnx").unlink()
    assert "model.int8.onnx" in refused()
    signature = json.loads((folder / NAME).read_text())
    payload = signature["dsseEnvelope"]["payload"]
    other = "A" if payload[200] != "A" else "B"
    signature["dsseEnvelope"]["payload"] = payload[:200] + other + payload[201:]
    (folder / NAME).write_text(json.dumps(signature))
    assert "not as the owner of" in refused()
    (folder / NAME).write_text("{")
    assert "not as the owner of" in refused()
    (folder / NAME).unlink()
    assert "it is not signed" in refused()


def test_other_keys(signed: tuple[Path, Path], tmp_path: Path) -> None:
    folder, public = signed
    private, other = keys(tmp_path, "other")
    with pytest.raises(BundleError, match=r"is not as the owner of .*other\.pub signed it"):
        check(folder, other)
    signer(private)(folder)  # by somebody else
    with pytest.raises(BundleError, match=r"is not as the owner of .*key\.pub signed it"):
        check(folder, public)
    for path in (tmp_path / "absent.pub", folder / "model.onnx", private):
        with pytest.raises(MifuseError, match="is not a public key"):
            check(folder, path)
    for path in (tmp_path / "absent.pem", folder / "model.onnx", public):
        with pytest.raises(ExportError, match="cannot sign"):
            signer(path)


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    private, public = keys(tmp_path)
    _, other = keys(tmp_path, "other")
    torch.manual_seed(0)
    Student(size="xs").save_pretrained(tmp_path / "student")
    out = tmp_path / "bundle"
    command = ["export", str(tmp_path / "student"), "-o", str(out), "--sign"]
    refused = CliRunner().invoke(mifuse, [*command, str(public)])
    assert (refused.exit_code, len(refused.output.strip().splitlines())) == (1, 1)
    assert not out.exists()
    done = CliRunner().invoke(mifuse, [*command, str(private)])
    assert done.exit_code == 0, done.output
    assert (out / NAME).is_file()
    assert device(["verify", str(out), "--public-key", str(public)]) == 0
    assert f"model.sig: of the owner of {public}" in capsys.readouterr().out
    assert device(["verify", str(out), "--public-key", str(other)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    for key, code in ((public, 0), (other, 1)):
        checked = CliRunner().invoke(mifuse, ["verify", str(out), "--public-key", str(key)])
        assert checked.exit_code == code, checked.output
    assert len(checked.output.strip().splitlines()) == 1


def test_without_the_package_the_extra_is_named(
    signed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(MifuseError, match=r"pip install 'mifuse-runtime\[signing\]'"):
        check(*signed)
    with pytest.raises(ExportError, match=r"'mifuse\[signing\]'"):
        signer(tmp_path / "key.pem")
