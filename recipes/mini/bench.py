"""Speed, memory and a peer, into README.md and RESULTS.md: python -m recipes.mini.bench

Runs `streamasr bench` on the bundled model and writes its table between the documents' markers.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from recipes.program import run
from recipes.sections import write_section

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--utterances", type=int, default=100)
    arguments = parser.parse_args()
    manifest = arguments.shared / "speech" / "test.jsonl"
    options = ["bench", "--manifest", str(manifest), "--utterances", str(arguments.utterances), "--streams", "200"]
    done = subprocess.run([sys.executable, "-m", "streamasr", *options], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why
    print(done.stdout)
    command = f"streamasr {' '.join(options)}"
    text = f"<!-- skip: takes minutes -->\n```console\n$ {command}\n{done.stdout.rstrip()}\n```"
    for document in (ROOT / "README.md", Path(__file__).parent / "RESULTS.md"):
        write_section(document, "bench", text)


if __name__ == "__main__":
    run(main)
