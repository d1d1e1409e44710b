"""
Make `_generated` again from the .proto files: `make generate`; `--check` only says whether it is current.

Runs by itself, where grpcio-tools is and dspex need not be. The version matters: generated code runs with
protobuf of its own version and newer, so an old generator keeps `dspex[grpc]` installable beside others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

GENERATOR = "1.76.0"
"""The version of grpcio-tools."""

PROTOS = sorted(Path(__file__).parent.glob("*.proto"))
OUTPUT = Path(__file__).with_name("_generated")


def generated() -> dict[str, str]:
    """The text of each file, by its name."""
    from grpc_tools import protoc  # pyright: ignore[reportMissingImports]  # for who generates only

    if version("grpcio-tools") != GENERATOR:
        raise SystemExit(f"this needs grpcio-tools {GENERATOR}: make generate")
    with tempfile.TemporaryDirectory() as made:
        arguments = [
            "protoc",
            f"-I{OUTPUT.parent}",
            f"-I{files('grpc_tools') / '_proto'}",
            f"--python_out={made}",
            f"--pyi_out={made}",
            *map(str, PROTOS),
        ]
        if protoc.main(arguments) != 0:
            raise SystemExit(1)
        return {file.name: file.read_text() for file in sorted(Path(made).iterdir())}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit with 1 if it is not current"
    )
    check = parser.parse_args().check
    for name, text in generated().items():
        file = OUTPUT / name
        if file.exists() and file.read_text() == text:
            continue
        if check:
            raise SystemExit(f"{file} is not what the .proto says: make generate")
        file.write_text(text)
        sys.stdout.write(f"{file}\n")


if __name__ == "__main__":
    main()
