"""The quick-start model in bf16, so that both engines read the same weights from one file."""

import os
import pathlib
import subprocess

import gguf


def bf16_model(root: pathlib.Path) -> pathlib.Path:
    shown = subprocess.run(
        [root / "scripts/get_model.sh"], stdout=subprocess.PIPE, text=True, check=True
    )
    source = pathlib.Path(shown.stdout.splitlines()[-1])
    target = source.with_name(source.name.replace("Q4_1", "BF16"))
    if not target.exists():
        part = target.with_suffix(".part")
        convert(source, part)
        os.replace(part, target)
    return target


def convert(source: pathlib.Path, target: pathlib.Path) -> None:
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        # The writer has its own header and architecture.
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.name == "general.file_type":
            writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        kind = gguf.GGMLQuantizationType.F32
        if len(tensor.shape) > 1:
            kind = gguf.GGMLQuantizationType.BF16
        data = gguf.quants.quantize(values, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
