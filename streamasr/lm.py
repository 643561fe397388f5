"""streamasr lm: an ARPA file of anybody's making -> the language model of a bundle."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from streamasr.bundle import read_bundle
from streamasr.decoding.arpa import read_arpa, write_ngram
from streamasr.decoding.backoff import Arpa
from streamasr.decoding.ngram import Ngram
from streamasr.errors import BundleError, OutputError
from streamasr.recognizer import BUNDLED
from streamasr.words import LEXICON, spell_like


def add_parser(commands: argparse._SubParsersAction[Any]) -> None:
    """Add `lm` to the commands of streamasr."""
    parser = commands.add_parser("lm", help="pack an n-gram language model (ARPA) for the beam search")
    parser.add_argument("arpa", type=Path, metavar="ARPA", help="plain, .gz or .xz; orders 1 to 4")
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--model", type=Path, metavar="PATH", help="bundle that it is for (default: the bundled one)")
    parser.add_argument("--max-mb", type=_megabytes, metavar="MB", help="drop what loses least until OUT is so small")
    parser.set_defaults(run=lm_command)


def lm_command(arguments: argparse.Namespace) -> int:
    """Read, spell, prune, write; say what was done."""
    output: Path = arguments.output
    if not output.name or output.is_dir() or output.suffix == LEXICON:
        raise OutputError(f"{output}: expected the name of a file; its spellings will lie beside it, as {LEXICON}")
    bundle = read_bundle(arguments.model or BUNDLED)
    whole = read_arpa(arguments.arpa)
    print(f"{arguments.arpa}: {_counts(whole)}", flush=True)
    spellings = spell_like(bundle, whole.words)
    spelled = {whole.words[i] for i in spellings.words}
    mute = [word for word in whole.words if word not in spelled and not word.startswith("<")]
    if not spelled:
        raise BundleError(f"{arguments.arpa}: none of its words can be spelled in the letters of {bundle.name}")
    limit = None if arguments.max_mb is None else int(arguments.max_mb * 1e6)
    try:
        kept = write_ngram(whole, output, limit, note=arguments.arpa.name[:200])
        spellings.save(output.with_suffix(LEXICON), Ngram.open(output).checksum)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written: {error.strerror or error}") from error
    print(f"{output}: {_counts(kept)}; {output.stat().st_size / 1e6:.2f} MB")
    if mute:
        print(f"{len(mute):,} words that {bundle.name} cannot spell will not be found: {', '.join(mute[:5])}, ...")
    return 0


def _counts(arpa: Arpa) -> str:
    orders = (f"{count:,} {order}-grams" for order, count in enumerate(arpa.counts[1:], 2))
    return ", ".join((f"{len(arpa.words):,} words", *orders))


def _megabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1e5:
        raise argparse.ArgumentTypeError(f"{text}: expected megabytes above 0")
    return value
