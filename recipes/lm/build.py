"""Text -> the bundled model's words: python -m recipes.lm.build

Estimates one 3-gram of the transcripts and one of the books, mixes them as dev likes it best, prunes and
quantises the mixture to the size that is asked for, and pronounces its words: by CMUdict where it has
them, else by the model of recipes.g2p. Writes WORK/en.lm and WORK/en.lex.
"""

from __future__ import annotations

import argparse
import math
import resource
import time
from pathlib import Path

import numpy as np

from recipes.lm.estimate import Estimate, kneser_ney, mix, pruned, word_log_probs
from recipes.lm.measure import shown
from recipes.lm.text import CORPORA, Ids, Vocabulary, choose_vocabulary, read_lines
from recipes.mini.data import HEADS, LETTERS, g2p_file
from recipes.program import run
from recipes.sections import write_section
from streamasr.decoding.arpa import write_ngram
from streamasr.decoding.backoff import Arpa, describe
from streamasr.decoding.g2p import G2p
from streamasr.decoding.ngram import MAX_WORDS, Ngram
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.manifest import read_manifest
from streamasr.training.lexicon import read_lexicon

SIZES_MB = (25.0, 12.0, 3.0)  # beside the one that is asked for
SHARES = np.arange(1, 20) / 20  # of the transcripts' model in the mixture
NOTE = "3-gram, modified Kneser-Ney, of LibriSpeech's training transcripts (CC BY 4.0) and public-domain books"


def pronounce(words: tuple[str, ...], shared: Path) -> Spellings:
    """All variants of CMUdict's words, and the best guess for the others. Marks such as <unk> have none."""
    lexicon, g2p = read_lexicon(shared / "lexicon" / "cmudict.dict"), G2p.open(g2p_file())
    places = {phone: i for i, phone in enumerate(HEADS["phones"])}

    def listed(word: str) -> list[bytes]:
        return sorted({bytes(places[phone] for phone in way) for way in lexicon.get(word, [])})

    return Speller(listed, HEADS["phones"], g2p).spell_all(words)


def ppl(arpa: Arpa, stream: Ids) -> float:
    """Perplexity per known word and sentence end, of the model before it is packed."""
    return math.exp(-float(word_log_probs(arpa, stream).mean()))


def estimate(shared: Path, vocabulary: Vocabulary, dev: Ids) -> tuple[Estimate, list[str]]:
    """The unpruned mixture, and what is to be said of it."""
    parts, probs, lines = [], [], ["| model | words | bigrams | trigrams | perplexity |", "|---|---|---|---|---|"]
    for name, file, _ in CORPORA:
        stream = vocabulary.encode(read_lines(shared / "text" / file))
        part = kneser_ney(stream, vocabulary)
        probs.append(np.exp(word_log_probs(part.arpa, dev)))
        lines.append(_row(name, int(np.sum(stream < vocabulary.end)), part.arpa, ppl(part.arpa, dev)))
        print(lines[-1], flush=True)
        parts.append(part)
    fits = [float(np.log(share * probs[0] + (1 - share) * probs[1]).mean()) for share in SHARES]
    share = float(SHARES[int(np.argmax(fits))])
    mixture = mix(parts, (share, 1 - share))
    lines.append(_row(f"mixture, {100 * share:.0f} % transcripts", None, mixture.arpa, ppl(mixture.arpa, dev)))
    print(lines[-1], flush=True)
    return mixture, lines


def _row(name: str, words: int | None, arpa: Arpa, value: float) -> str:
    counts = " | ".join(f"{count:,}" for count in arpa.counts[1:])
    return f"| {name} | {'' if words is None else f'{words:,}'} | {counts} | {value:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--work", type=Path, default=Path("work/lm"))
    parser.add_argument("--words", type=int, default=50_000)
    parser.add_argument("--mb", type=float, default=5.9, help="size of the language model's file")
    parser.add_argument("--write", action="store_true", help="perplexities on dev into RESULTS.md")
    arguments = parser.parse_args()
    if not 1 <= arguments.words <= MAX_WORDS - 1:
        parser.error(f"--words: got {arguments.words}, expected 1 to {MAX_WORDS - 1}")
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    vocabulary = choose_vocabulary(arguments.shared, arguments.words)
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    dev = vocabulary.encode(u.text for u in utterances)
    sentences = [u.text.split() for u in utterances]
    libri = [u.text.split() for u in utterances if u.source.startswith("ls-")]
    model, lines = estimate(arguments.shared, vocabulary, dev)
    lines += [
        *("", "The mixture, pruned and packed:", ""),
        "| file MB | bigrams | trigrams | perplexity before packing | packed | packed, LibriSpeech's part of dev |",
        "|---|---|---|---|---|---|",
    ]
    for megabytes in sorted({*SIZES_MB, arguments.mb}, reverse=True):  # the smaller from the larger
        chosen = megabytes == arguments.mb
        path = work / ("en.lm" if chosen else f"en-{megabytes:g}.lm")
        if describe(model.arpa).offsets()[""] > megabytes * 1e6:
            model = pruned(model, int(megabytes * 1e6))
        write_ngram(model.arpa, path, note=NOTE)
        lm, counts = Ngram.open(path), " | ".join(f"{count:,}" for count in model.arpa.counts[1:])
        values = f"{ppl(model.arpa, dev):.1f}", shown(lm, sentences), shown(lm, libri)
        lines.append(f"| {path.stat().st_size / 1e6:.2f} | {counts} | {' | '.join(values)} |")
        print(lines[-1], flush=True)
    known = set(vocabulary.words)
    spoken = [word for sentence in sentences for word in sentence]
    lines += [
        "",
        f"{len(known) - 1:,} words; of the {len(spoken):,} words of dev, {sum(w not in known for w in spoken)} are not "
        f"among them and not counted. {(time.monotonic() - began) / 60:.0f} minutes beside other work, "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.1f} GB.",
    ]
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "perplexity", "\n".join(lines))
    pronounce(vocabulary.words, arguments.shared).save(work / "en.lex")


if __name__ == "__main__":
    run(main)
