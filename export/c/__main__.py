"""python -m export.c BUNDLE FOLDER"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from export.c.graph import read_network
from export.c.tables import model_c, sizes_h
from export.program import run
from streamasr.bundle import read_bundle
from streamasr.errors import StreamasrError

HERE = Path(__file__).parent
ENGINE = (
    "streamasr.h",
    "streamasr.c",
    "network.h",
    "network.c",
    "products.c",
    "gates.c",
    "log_mel.c",
    "model.h",
    "main.c",
    "Makefile",
    "ort/network.h",
    "ort/network.c",
)


def write_c(bundle_folder: Path, folder: Path) -> None:
    """Write a recogniser: the engine's sources and the model's tables."""
    bundle = read_bundle(bundle_folder)
    network = read_network(bundle)
    if folder.exists() and any(folder.iterdir()) and not (folder / "sizes.h").is_file():
        raise StreamasrError(f"{folder}: holds other files: not overwritten; name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ort").mkdir(exist_ok=True)
    for name in ENGINE:
        shutil.copyfile(HERE / name, folder / name)
    (folder / "sizes.h").write_text(sizes_h(bundle, network), encoding="utf-8")
    with (folder / "model.c").open("w", encoding="utf-8") as file:
        file.writelines(model_c(bundle, network))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m export.c", description="A bundle -> a recogniser in C99.")
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where the sources go; compile them with make")
    arguments = parser.parse_args()
    write_c(arguments.bundle, arguments.folder)
    print(f"{arguments.folder}: run make there")


if __name__ == "__main__":
    run(main, "export.c")
