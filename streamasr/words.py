"""The words of a bundle, opened: language model, lexicon, and spellings for all other words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from streamasr.bundle import Bundle, WordSearch
from streamasr.decoding.g2p import G2p
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import Recurrent
from streamasr.decoding.rescore import Rescorer
from streamasr.decoding.speller import Speller
from streamasr.decoding.spellings import Spellings
from streamasr.decoding.unknown import REWARD, Unknown
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.errors import BundleError

LEXICON = ".lex"  # the suffix of a language model's spellings, beside it


def open_words(bundle: Bundle, lm: Path | None = None, unknown: bool = False) -> Vocabulary:
    """The bundle's own words, or those of the language model `lm` (made by `streamasr lm`).

    unknown: also any others, heard phone by phone.
    """
    search = word_search(bundle)
    ngram = Ngram.open(lm or _file(bundle, search, search.lm))
    lexicon = lm.with_suffix(LEXICON) if lm else _file(bundle, search, search.lexicon)
    spellings = Spellings.load(lexicon, ngram.checksum)
    if len(spellings.words) and spellings.words.max() >= len(ngram.words):
        raise BundleError(f"{lexicon}: spells words that {lm} does not have; make both with `streamasr lm`")
    vocabulary = Vocabulary(ngram, spellings, speller(bundle, ngram, spellings), search.beam)
    return with_unknown(bundle, vocabulary) if unknown else vocabulary


def with_unknown(bundle: Bundle, vocabulary: Vocabulary, reward: float = REWARD) -> Vocabulary:
    """These words and any others. reward: as for Unknown."""
    search = word_search(bundle)
    tokens = bundle.head(search.head)[1]
    model = G2p.open(_file(bundle, search, search.g2p))
    if missing := set(tokens[1:]) - set(model.phones):
        raise BundleError(f"{search.g2p}: cannot write {', '.join(sorted(missing))}; do without unknown words")
    weight = search.beam.lm_weight
    unknown = Unknown(tokens, vocabulary.spellings, model.write, weight, reward)
    return replace(vocabulary, unknown=unknown)


def open_rescorer(bundle: Bundle, vocabulary: Vocabulary) -> Rescorer | None:
    """The bundle's recurrent language model, if it has one. vocabulary: the bundle's own."""
    search = word_search(bundle)
    if search.rescoring is None:
        return None
    path = _file(bundle, search, search.rescoring.file)
    return Rescorer(Recurrent(path, search.rescoring.states, vocabulary.lm.words), search.rescoring)


def speller(bundle: Bundle, ngram: Ngram, spellings: Spellings) -> Speller:
    """Spells words as a lexicon has them, others by the bundle's model of how they are spoken."""
    search = word_search(bundle)

    def listed(word: str) -> list[bytes]:
        number = ngram.number(word)
        return [] if number == ngram.unknown else spellings.of_word(number)

    return Speller(listed, bundle.head(search.head)[1], G2p.open(_file(bundle, search, search.g2p)))


def spell_like(bundle: Bundle, words: tuple[str, ...]) -> Spellings:
    """Spellings of other words in the same tokens."""
    search = word_search(bundle)
    ngram = Ngram.open(_file(bundle, search, search.lm))
    return speller(bundle, ngram, Spellings.load(_file(bundle, search, search.lexicon))).spell_all(words)


def word_search(bundle: Bundle) -> WordSearch:
    """How the bundle searches words. BundleError: it has none."""
    if bundle.search is None:
        raise BundleError(f"{bundle.folder}: has no words to choose from, only letters; use a bundle with a lexicon")
    return bundle.search


def _file(bundle: Bundle, search: WordSearch, name: str) -> Path:
    return bundle.file(name, search.sha256[name])
