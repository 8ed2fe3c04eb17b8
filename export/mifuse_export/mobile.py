"""ONNX to the ORT format, which ONNX Runtime Mobile reads."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import onnxruntime

from mifuse_export.errors import ExportError
from mifuse_export.onnx import session_options

ALIGNMENT = 16  # bytes; of the largest numbers in an ORT file
ENGINE = "onnxruntime-mobile"  # for Android and iOS; here ONNX Runtime itself reads its files
OPERATORS = "required_operators_and_types.config"  # what its build takes, so named by its own tools


def write_ort(source: Path, target: Path) -> None:
    """Convert the ONNX file `source`: optimised for any CPU, constants folded, since the phone cannot do it.

    Raises:
        ExportError: ONNX Runtime cannot convert the graph.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    options = session_options()
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        # The left-out optimiser lays data out for the CPU of this machine.
        onnxruntime.InferenceSession(
            str(source),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["NchwcTransformer"],
        )
    except Exception as error:  # ONNX Runtime's errors share no base class
        line = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime cannot convert {source.name} to ORT format: {line}") from error
    target.write_bytes(canonical_ort(target.read_bytes()))


def canonical_ort(data: bytes) -> bytes:
    """The same ORT file, made of the same bytes each time.

    Of a flatbuffer, which is written from its end, ONNX Runtime writes the model first and always alike, then
    the operators' types in another order in each process. Here these are written anew in front of the model.
    """
    import flatbuffers
    import onnxruntime.tools.ort_format_model  # noqa: F401  # puts ort_flatbuffers_py where Python finds it
    from ort_flatbuffers_py.fbs import (
        ArgTypeAndIndex,
        InferenceSession,
        KernelTypeStrArgsEntry,
        KernelTypeStrResolver,
        OpIdKernelTypeStrArgsEntry,
    )

    def table(kind: Any, **fields: Any) -> int:
        kind.Start(builder)
        for name, value in fields.items():
            getattr(kind, f"Add{name}")(builder, value)
        return int(kind.End(builder))

    def vector(tables: list[int]) -> int:
        builder.StartVector(4, len(tables), 4)
        for offset in reversed(tables):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    def argument(it: Any) -> int:
        return table(ArgTypeAndIndex, ArgType=it.ArgType(), Index=it.Index())

    def types(it: Any) -> int:
        name = builder.CreateString(it.KernelTypeStr())
        arguments = vector([argument(it.Args(i)) for i in range(it.ArgsLength())])
        return table(KernelTypeStrArgsEntry, KernelTypeStr=name, Args=arguments)

    def operator(it: Any) -> int:
        name = builder.CreateString(it.OpId())
        entries = vector([types(it.KernelTypeStrArgs(i)) for i in range(it.KernelTypeStrArgsLength())])
        return table(OpIdKernelTypeStrArgsEntry, OpId=name, KernelTypeStrArgs=entries)

    session = InferenceSession.InferenceSession.GetRootAs(data)
    model, resolver = session.Model()._tab, session.KernelTypeStrResolver()
    layout = model.Pos - int.from_bytes(data[model.Pos : model.Pos + 4], "little", signed=True)
    builder = flatbuffers.Builder()
    builder.Bytes, builder.head = bytearray(data[min(model.Pos, layout) :]), 0
    builder.minalign = ALIGNMENT
    operators = [
        operator(resolver.OpKernelTypeStrArgs(i)) for i in range(resolver.OpKernelTypeStrArgsLength())
    ]
    root = table(
        InferenceSession,
        OrtVersion=builder.CreateString(session.OrtVersion()),
        Model=len(data) - model.Pos,  # offsets are from the end
        KernelTypeStrResolver=table(KernelTypeStrResolver, OpKernelTypeStrArgs=vector(operators)),
    )
    builder.Finish(root, file_identifier=data[4:8])
    return bytes(builder.Output())


def write_operators(folder: Path) -> None:
    """List operators and types of the ORT files in `folder`, for a build of ONNX Runtime without others."""
    from onnxruntime.tools.ort_format_model import create_config_from_models

    logging.getLogger("ort_format_model.utils").setLevel(logging.WARNING)  # it reports every file
    target = folder / OPERATORS
    create_config_from_models(sorted(folder.glob("*.ort")), target, enable_type_reduction=True)
    lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
    # Its comments name folders of this machine.
    target.write_text("".join(line for line in lines if not line.startswith("#")), encoding="utf-8")
