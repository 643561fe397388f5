"""Our search beside one that nobody here wrote: python -m recipes.mini.oracle [--write]

flashlight-text's LexiconDecoder gets the same emissions of dev utterances, lexicon, weights and language model,
not quantised. One function scores what either finds: log of the CTC sum over all alignments and spellings, plus the
weighted language model with </s>, plus the word score. Needs flashlight-text and kenlm. A missing language model
is made of an ARPA file of the bundle's words, pruned.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recipes.mini.data import LETTERS
from recipes.mini.listen import read_16k
from recipes.program import run
from recipes.sections import write_section
from streamasr.bundle import BeamConfig
from streamasr.decoding.arpa import LN10, read_arpa, write_ngram
from streamasr.decoding.backoff import Arpa
from streamasr.decoding.beam import BeamSearch
from streamasr.decoding.beam_state import BLANK
from streamasr.decoding.hypothesis import decoded
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.prune import prune
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.errors import BundleError
from streamasr.manifest import read_manifest, spread
from streamasr.recognizer import BUNDLED, load
from streamasr.training.evaluation import ErrorCount
from streamasr.words import spell_like

Floats = NDArray[np.float64]
Emissions = NDArray[np.float32]
Words = list[int]

IMPOSSIBLE = -1e4  # emission of flashlight's silence between words, which our tokens do not have
EQUAL = 1e-4  # scores are sums of some hundred float32
# Nothing that makes the search cheap at the price of being wrong at times.
WIDE = BeamConfig(hypotheses=1500, histories=1, width=25.0, token_width=1e3, blank_skip=1.1, pause=10**6)
BEAM, THRESHOLD = 200, 25.0  # flashlight's hypotheses, and how far they may be from the best


def write_arpa(arpa: Arpa, path: Path) -> None:
    """A model as text."""
    words = (*arpa.words, "</s>", "<s>")
    with path.open("w", encoding="utf-8") as file:
        print("\\data\\", *(f"ngram {k}={n}" for k, n in enumerate(arpa.counts, 1)), sep="\n", file=file)
        for order, level in enumerate(arpa.levels, 1):
            print(f"\n\\{order}-grams:", file=file)
            ids = [(level.keys >> np.uint64(16 * k) & np.uint64(0xFFFF)).tolist() for k in reversed(range(order))]
            weights = (level.log_prob / LN10).tolist(), (level.backoff / LN10).tolist()
            for log_prob, backoff, *gram in zip(*weights, *ids, strict=True):
                tail = f"\t{backoff:.9g}" if order < len(arpa.levels) else ""
                print(f"{log_prob:.9g}\t{' '.join(words[i] for i in gram)}{tail}", file=file)
        print("\n\\end\\", file=file)


def ctc_sum(rows: Emissions, spellings: Sequence[Sequence[bytes]]) -> float:
    """Log of the sum over all alignments of all ways to spell words; spellings[i]: the ways of word i.

    The forward algorithm (Graves et al. 2006) over a lattice: one blank before, between and after the words, which
    all ways share, and for each way its tokens with blanks between.
    """
    tokens, before = [BLANK], [[0]]  # of each state: what it emits, the states it is reached from
    gap, ends = 0, list[int]()
    for ways in spellings:
        new_ends = []
        for way in ways:
            last = -1
            for i, token in enumerate(way):
                if i > 0:
                    tokens.append(BLANK)
                    before.append([last, len(tokens) - 1])
                from_label = [last] if i > 0 else ends
                from_blank = len(tokens) - 1 if i > 0 else gap
                last = len(tokens)
                before.append([last, from_blank, *(s for s in from_label if tokens[s] != token)])
                tokens.append(token)
            new_ends.append(last)
        gap, ends = len(tokens), new_ends
        before.append([gap, *ends])
        tokens.append(BLANK)
    nowhere = len(tokens)
    most = max(map(len, before))
    table = np.array([row + [nowhere] * (most - len(row)) for row in before])
    alpha = np.full(nowhere + 1, -np.inf)
    alpha[0] = 0.0
    for row in rows[:, tokens].astype(np.float64):
        ways_in = alpha[table]
        top = ways_in.max(axis=1)
        safe = np.where(np.isfinite(top), top, 0.0)
        with np.errstate(divide="ignore"):
            alpha[:nowhere] = safe + np.log(np.exp(ways_in - safe[:, None]).sum(axis=1)) + row
    return float(np.logaddexp.reduce(alpha[[gap, *ends]]))


def score(rows: Emissions, words: Words, vocabulary: Vocabulary) -> float:
    """What both searches look for the greatest of."""
    lm, config = vocabulary.lm, vocabulary.config
    state, log_prob = np.array([lm.start], dtype=np.int64), 0.0
    for word in words:
        one, state = lm.score(state, np.array([word], dtype=np.int32))
        log_prob += float(one[0])
    log_prob += float(lm.end(state)[0])
    ctc = ctc_sum(rows - vocabulary.penalties, [vocabulary.spellings.of_word(word) for word in words])
    return ctc + config.lm_weight * log_prob + config.word_bonus * len(words)


class Flashlight:
    """flashlight-text's search over a vocabulary and the ARPA file of its language model.

    It ends a word with the first frame of the last token and cannot stay on it: it reckons with a silence token
    between words, and we have none (the one it gets here is impossible). `again`: each word is also spelled with its
    last token twice, the second time as a copy that is emitted like it; then it can stay. That allows a blank between
    the two, which is wrong, so we ask both ways and take the better.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        arpa: Path,
        tokens: int,
        again: bool,
        beam: int = BEAM,
        threshold: float = THRESHOLD,
    ) -> None:
        decoder = import_module("flashlight.lib.text.decoder")
        names = import_module("flashlight.lib.text.dictionary").Dictionary(list(vocabulary.lm.words))
        lm = import_module("flashlight.lib.text.decoder.kenlm").KenLM(str(arpa), names)
        silence = 2 * tokens
        trie = decoder.Trie(silence + 1, silence)
        for row, word in zip(vocabulary.spellings.table, vocabulary.spellings.words.tolist(), strict=True):
            spelled = row[row != 0].tolist()
            for way in (spelled, [*spelled, spelled[-1] + tokens])[: 1 + again]:
                trie.insert(way, word, float(vocabulary.lm.unigram[word]) / LN10)
        trie.smear(decoder.SmearingMode.MAX)
        options = decoder.LexiconDecoderOptions(
            beam_size=beam,
            beam_size_token=silence + 1,
            beam_threshold=threshold,
            lm_weight=vocabulary.config.lm_weight * LN10,  # KenLM's logarithms are decimal
            word_score=vocabulary.config.word_bonus,
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=decoder.CriterionType.CTC,
        )
        self._parts: tuple[Any, ...] = (lm, names, trie)  # the decoder does not own them
        self._penalties = vocabulary.penalties
        self._decoder = decoder.LexiconDecoder(options, trie, lm, silence, BLANK, -1, [], False)

    def __call__(self, rows: Emissions) -> Words:
        """The words of the best hypothesis."""
        rows, silence = rows - self._penalties, np.full((len(rows), 1), IMPOSSIBLE)
        wide = np.ascontiguousarray(np.concatenate([rows, rows, silence], axis=1), dtype=np.float32)
        found = self._decoder.decode(wide.ctypes.data, *wide.shape)
        return [word for word in found[0].words if word >= 0] if found else []


def ours(vocabulary: Vocabulary) -> Callable[[Emissions], Words]:
    """Our search, from emissions to words."""
    search = BeamSearch(vocabulary)

    def decode(rows: Emissions) -> Words:
        return [vocabulary.lm.number(word.text) for word in search.final(decoded(search, rows)).words]

    return decode


@dataclass(frozen=True)
class Found:
    """What one search found in some utterances."""

    words: list[Words]
    scores: list[float]
    seconds: float  # of the processor

    def better(self, other: Found) -> Found:
        """Of each utterance, what scores higher."""
        chosen = [self if a >= b else other for a, b in zip(self.scores, other.scores, strict=True)]
        return Found(
            [f.words[i] for i, f in enumerate(chosen)],
            [f.scores[i] for i, f in enumerate(chosen)],
            self.seconds + other.seconds,
        )


def search_all(decode: Callable[[Emissions], Words], heard: Iterable[Emissions], vocabulary: Vocabulary) -> Found:
    """Decode and score."""
    words, scores, seconds = [], [], 0.0
    for rows in heard:
        began = time.process_time()
        words.append(decode(rows))
        seconds += time.process_time() - began
        scores.append(score(rows, words[-1], vocabulary))
    return Found(words, scores, seconds)


def compare(
    heard: Sequence[Emissions], texts: Sequence[str], vocabulary: Vocabulary, arpa: Path, shipped: BeamConfig
) -> list[str]:
    """The searches side by side, as Markdown."""
    tokens, beams = heard[0].shape[1], f"beam {BEAM}, threshold {THRESHOLD:g}"
    decoders: dict[str, Callable[[Emissions], Words]] = {
        f"ours, {_config(vocabulary.config)}": ours(vocabulary),
        f"ours, {_config(shipped)}, as shipped": ours(replace(vocabulary, config=shipped)),
        f"flashlight-text, {beams}": Flashlight(vocabulary, arpa, tokens, again=False),
        f"flashlight-text, {beams}, last tokens may last": Flashlight(vocabulary, arpa, tokens, again=True),
    }
    found = {}
    for name, decode in decoders.items():
        found[name] = search_all(decode, heard, vocabulary)
        print(_row(name, found[name], texts, vocabulary), flush=True)
    wide, narrow, plain, again = found.values()
    theirs = plain.better(again)
    found["the better of flashlight-text's two"] = theirs
    lines = ["| search | WER % | mean score | seconds |", "|---|---|---|---|"]
    lines += [_row(name, values, texts, vocabulary) for name, values in found.items()]
    frames = sum(map(len, heard))
    lines += [
        "",
        f"{len(heard)} utterances, {frames:,} frames; seconds of the processor. Against the better of the two:",
    ]
    lines += ["", "| search | the same words | above | below | worst | mean difference |", "|---|---|---|---|---|---|"]
    for name, one in zip(found, (wide, narrow), strict=False):
        gain = np.array(one.scores) - np.array(theirs.scores)
        same = sum(a == b for a, b in zip(one.words, theirs.words, strict=True))
        above, below = int((gain > EQUAL).sum()), int((gain < -EQUAL).sum())
        lines.append(f"| {name} | {same} | {above} | {below} | {gain.min():.3f} | {gain.mean():+.3f} |")
        for i in np.flatnonzero(gain < -EQUAL):
            print(f"{name}: {i}: {gain[i]:.4f}")
            print(*(" ".join(vocabulary.lm.words[w] for w in f.words[i]) for f in (one, theirs)), sep="\n", flush=True)
    return lines


def _config(config: BeamConfig) -> str:
    return f"{config.hypotheses} hypotheses, width {config.width:g}"


def _row(name: str, found: Found, texts: Sequence[str], vocabulary: Vocabulary) -> str:
    count = ErrorCount()
    for text, words in zip(texts, found.words, strict=True):
        count.add(text.split(), [vocabulary.lm.words[word] for word in words])
    return f"| {name} | {100 * count.rate:.2f} | {np.mean(found.scores):.3f} | {found.seconds:.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLED)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument(
        "--arpa",
        type=Path,
        default=Path("work/lm/irst.arpa"),
        help="of the bundle's words, any size; recipes/lm/RESULTS.md says how it was made",
    )
    parser.add_argument("--work", type=Path, default=Path("work/oracle"), help="where the pruned model is kept")
    parser.add_argument("--mb", type=float, default=12.0, help="of the pruned model")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="into RESULTS.md")
    arguments = parser.parse_args()
    text, packed = arguments.work / "small.arpa", arguments.work / "small.lm"
    if not (text.exists() and packed.exists()):
        arguments.work.mkdir(parents=True, exist_ok=True)
        small = prune(read_arpa(arguments.arpa), int(arguments.mb * 1e6), quantise=False)
        write_arpa(small, text)
        write_ngram(small, packed, quantise=False)
    recognizer = load(arguments.bundle)
    if not isinstance(recognizer.decoder, BeamSearch):
        raise BundleError(f"{arguments.bundle}: has no words, expected a bundle with a lexicon")
    shipped, lm = recognizer.decoder.config, Ngram.open(packed)
    weights = {name: getattr(shipped, name) for name in ("lm_weight", "word_bonus", "blank_penalty", "token_penalties")}
    config = replace(WIDE, **weights)
    known = recognizer.decoder.vocabulary
    spellings = known.spellings if lm.words == known.lm.words else spell_like(recognizer.bundle, lm.words)
    vocabulary = Vocabulary(lm, spellings, known.speller, config)
    utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)
    chosen = spread(utterances, arguments.utterances)
    heard = [recognizer.acoustic.whole(read_16k(u.audio))[:, recognizer.head] for u in chosen]
    lines = compare(heard, [u.text for u in chosen], vocabulary, text, shipped)
    print(*lines, sep="\n")
    if arguments.write:
        write_section(Path(__file__).parent / "RESULTS.md", "oracle", "\n".join(lines))


if __name__ == "__main__":
    run(main)
