import pathlib

import include_rules
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_every_include_follows_the_table():
    found = include_rules.violations(include_rules.source_files(ROOT))
    assert not found, "\n" + "\n".join(map(str, found))


def test_every_target_links_by_the_table():
    found = include_rules.target_violations(ROOT)
    assert not found, "\n" + "\n".join(map(str, found))


def test_the_table_has_no_circle():
    assert include_rules.table_is_in_order()


def test_every_row_of_the_table_is_a_folder():
    folders = [p for p in [*ROOT.iterdir(), *(ROOT / "common").iterdir()] if p.is_dir()]
    assert set(include_rules.BELOW) - {folder.name for folder in folders} == set()


def plant(root: pathlib.Path, files: dict[str, str]) -> list[str]:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = include_rules.violations(include_rules.source_files(root))
    return [str(violation) for violation in found]


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("prefill/a.h", '#include "decode/b.h"', "prefill may not include decode"),
        ("decode/a.h", '#include "prefill/b.h"', "decode may not include prefill"),
        ("common/ops/a.h", '#include "common/kvcache/b.h"', "ops may not include kvcache"),
        ("common/base/a.h", '#include "common/net/b.h"', "base may not include net"),
        ("kvtransfer/a.cc", '#  include "common/net/b.h"', "kvtransfer may not include net"),
        ("router/a.cc", '#include "common/model/b.h"', "router may not include model"),
        ("kvtransfer/a.h", "#include <ucp/api/ucp.h>", "belongs only in"),
        ("decode/a.cc", "#include <ucp/api/ucp.h>", "belongs only in"),
        ("common/engine/a.h", "#include <cuda_runtime.h>", "belongs only in"),
        ("common/ops/a.cu", "#include <cuda_runtime.h>", "belongs only in"),
        ("tests/ops/a.cuh", "#include <cublasLt.h>", "belongs only in"),
        ("common/engine/a.h", "#include <boost/json/value.hpp>", "belongs only in"),
    ],
)
def test_a_planted_violation_is_found(tmp_path, file, line, complaint):
    others = {
        f"{folder}/b.h": "#pragma once\n"
        for folder in ["prefill", "decode", "common/kvcache", "common/net", "common/model"]
    }
    [found] = plant(tmp_path, others | {file: f"#pragma once\n{line}\n"})
    assert found.startswith(f"{file}:2: ")
    assert complaint in found


def test_a_planted_circle_is_found(tmp_path):
    files = {"router/a.h": '#include "router/b.h"\n', "router/b.h": '#include "router/a.h"\n'}
    [found] = plant(tmp_path, files)
    assert "router/a.h -> router/b.h -> router/a.h" in found


def test_an_include_from_elsewhere_than_the_root_is_found(tmp_path):
    [found] = plant(tmp_path, {"router/a.cc": '#include "b.h"\n', "router/b.h": ""})
    assert "written from its root" in found


def test_a_folder_without_a_place_is_found(tmp_path):
    [found] = plant(tmp_path, {"annex/a.h": "#pragma once\n"})
    assert "no place in the table" in found


def test_what_is_allowed_passes(tmp_path):
    files = {
        "common/base/a.h": "#include <vector>\n",
        "kvtransfer/a.cc": '#include <ucp/api/ucp.h>\n#include "common/base/a.h"\n',
        "cli/main.cc": '#include "common/base/a.h"\n',
        "common/ops/cuda/a.cu": "#include <cuda_bf16.h>\n",
        "tests/gpu/a.cu": "#include <cuda_runtime.h>\n",
        "tests/ops/cuda/a.cc": "#include <cublasLt.h>\n",
    }
    assert plant(tmp_path, files) == []


def test_a_planted_link_is_found(tmp_path):
    for folder, dependency in [("router", "ops"), ("common/ops", "base"), ("common/base", "")]:
        path = tmp_path / folder / "CMakeLists.txt"
        path.parent.mkdir(parents=True)
        dependencies = f"DEPS baton::{dependency}" if dependency else ""
        path.write_text(f"baton_library({path.parent.name}\n  {dependencies})\n")
    [found] = include_rules.target_violations(tmp_path)
    assert str(found) == "router/CMakeLists.txt:1: a target of router may not link baton::ops"
