"""CTC prefix beam search over a tree of words, with an n-gram language model, on arrays.

A hypothesis is a sequence of words and a place in the tree of the next one. Its probability is the
sum over all alignments (Graves 2012; Hannun et al. 2014), kept apart for those that end in the
blank and those that end in its last token. Of hypotheses whose future is the same (place, last token,
state of the language model) but whose words are not, only the best few live on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streamasr.decoding import links
from streamasr.decoding.beam_state import BLANK, BeamState
from streamasr.decoding.candidates import NEVER, Candidates, Floats, Ints, Names, longer, of_phones
from streamasr.decoding.hypothesis import Hypothesis, Spoken
from streamasr.decoding.links import Link
from streamasr.decoding.prefixtree import ROOT
from streamasr.decoding.rescore import Ending, Rescorer
from streamasr.decoding.vocabulary import Vocabulary
from streamasr.errors import StreamError

ABANDONED = 25.0  # nats that breaking a word off costs, more than saying it: or rare words before a pause were lost
NO_PHONES = np.zeros((0, 0), dtype=np.uint64)
ROUNDING = 1e-6  # more than sums of the same numbers in another order differ by
CROWD = 2  # times as many hypotheses as may live on are looked at: of more, nothing is left in the end
PATIENCE = 5  # frames for which a word that is not complete is believed to go on


class BeamSearch:
    """A Decoder over one head of tokens."""

    def __init__(self, vocabulary: Vocabulary, rescorer: Rescorer | None = None) -> None:
        """rescorer: has the last word on how an utterance ends; None: the vocabulary's language model has it."""
        self.vocabulary = vocabulary
        self.rescorer = rescorer
        self.config = vocabulary.config
        self._tree = vocabulary.tree
        self._hope = self._tree.best.copy()
        self._hope[ROOT] = 0.0
        self._reach = self._tree.best.copy()  # the most that any child of a node may hope for
        self._reach[ROOT] = self._tree.best[[ROOT, *self._tree.roots]].max()
        self._rows = 2 if vocabulary.unknown else 0  # of BeamState.spelled
        self._skip = math.log(self.config.blank_skip)
        self._penalties = vocabulary.penalties
        self._with = lru_cache(maxsize=8)(self._with_pairs)  # streams with the same hotwords share one tree

    def with_phrases(self, bonuses: Mapping[str, float]) -> BeamSearch:
        """The same search with hotwords, in place of those it had: text -> log-probability given on top."""
        return self._with(tuple(bonuses.items()))

    def _with_pairs(self, bonuses: tuple[tuple[str, float], ...]) -> BeamSearch:
        return type(self)(self.vocabulary.with_phrases(dict(bonuses)), self.rescorer)

    def adopt(self, state: BeamState) -> BeamState:
        """The state of a search with other phrases: what stands within one of those is forgotten, no more."""
        kept = np.flatnonzero(state.node < len(self.vocabulary.plain_tree))
        if len(kept):
            return state.chosen(kept)
        return replace(state, node=np.full_like(state.node, ROOT), spelled=np.zeros_like(state.spelled))

    def start(self) -> BeamState:
        return self._fresh(0, 0)

    def _fresh(self, frame: int, letter_frame: int) -> BeamState:
        return BeamState.fresh(frame, letter_frame, self.vocabulary.lm.start, self._rows)

    def step(self, log_probs: NDArray[np.float32], state: BeamState) -> BeamState:
        state = self._decided(state)
        lp = log_probs.astype(np.float64)
        heard, total = lp - self._penalties, state.total
        if lp[BLANK] >= self._skip:
            return replace(
                state,
                frame=state.frame + 1,
                blank=total + heard[BLANK],
                label=np.full(len(total), NEVER),
            )
        best_token = int(lp.argmax())
        likely = lp >= lp[best_token] - self.config.token_width
        likely[BLANK] = False
        tokens = likely.nonzero()[0]

        state = self._without_pauses(state)
        stay_blank = total + heard[BLANK]
        stay_label = state.label + heard[state.last]  # NEVER, where there was no token yet
        stay_rank = np.logaddexp(stay_blank, stay_label) + state.prior + self._hope[state.node]
        # Longer by a token: after the same token only alignments with a blank between count.
        of, token, child = self._tree.extend(
            state.node, tokens, self._worthwhile(state, total, heard[tokens], stay_rank)
        )
        grown = np.where(state.last[of] == token, state.blank[of], total[of]) + heard[token]
        spelled, grown_prior = self._spelled_on(state, of, token, child)
        grown_rank = grown + grown_prior + self._hope[child]
        least = self._least(stay_rank, grown_rank)
        kept = (grown_rank >= least).nonzero()[0]
        of, token, child, grown, grown_rank = of[kept], token[kept], child[kept], grown[kept], grown_rank[kept]
        grown_prior = grown_prior[kept]
        if self.vocabulary.unknown:
            spelled = spelled[:, kept]
        # A word may end wherever one stands in the tree; then the next begins at the root.
        ending, word = self._tree.words(child)
        lm_score, worth, lm = self.vocabulary.score(state.lm[of[ending]], word)
        end_prior = grown_prior[ending] + worth
        if self.vocabulary.unknown:
            end_prior += self.vocabulary.unknown.end(spelled[:, ending])
        end_rank = grown[ending] + end_prior
        kept = (end_rank >= least).nonzero()[0]
        ending, word, lm_score, lm = ending[kept], word[kept], lm_score[kept], lm[kept]
        end_prior, end_rank = end_prior[kept], end_rank[kept]
        staying = (stay_rank >= least).nonzero()[0]

        open_ = np.concatenate([staying, of])
        history = state.history[of[ending]]
        if self.vocabulary.unknown:
            history ^= of_phones(spelled[:, ending])
            ended = np.zeros((len(spelled), len(word)), np.uint64)
            spelled = np.concatenate([state.spelled[:, staying], spelled, ended], axis=1)
        candidates = Candidates(
            stay=len(staying),
            word=word,
            lm_score=lm_score,
            source=np.concatenate([open_, of[ending]]),
            node=np.concatenate([state.node[staying], child, np.full(len(word), ROOT)]),
            last=np.concatenate([state.last[staying], token, token[ending]]),
            lm=np.concatenate([state.lm[open_], lm]),
            history=np.concatenate([state.history[open_], longer(history, word)]),
            spelled=spelled,
            blank=np.concatenate([stay_blank[staying], np.full(len(of) + len(word), NEVER)]),
            label=np.concatenate([stay_label[staying], grown, grown[ending]]),
            prior=np.concatenate([state.prior[staying], grown_prior, end_prior]),
            rank=np.concatenate([stay_rank[staying], grown_rank, end_rank]),
        )
        letter_frame = state.frame if best_token != BLANK else state.letter_frame
        return self._settle(state, lp, letter_frame, candidates)

    def _least(self, *ranks: Floats) -> float:
        """The rank that a hypothesis needs: within the width of the best, and among CROWD times as many as live on."""
        least = max(float(rank.max(initial=NEVER)) for rank in ranks) - self.config.width
        if sum(map(len, ranks)) <= (most := CROWD * self.config.hypotheses):
            return least
        return max(least, float(np.partition(np.concatenate(ranks), -most)[-most]))

    def _worthwhile(
        self, state: BeamState, total: Floats, heard: Floats, stay_rank: Floats
    ) -> NDArray[np.bool_] | None:
        """(hypotheses, tokens): which pairs may come out within the width, so that the others need not be made.

        None: an unknown word's reward for its next phone has no bound here.
        """
        if self.vocabulary.unknown:
            return None
        most = (total + state.prior + self._reach[state.node])[:, None] + heard
        within: NDArray[np.bool_] = most >= stay_rank.max() - self.config.width - ROUNDING
        return within

    def _spelled_on(self, state: BeamState, of: Ints, token: Ints, child: Ints) -> tuple[Names, Floats]:
        """For hypotheses that grow by a token: their unknown words' phones, what they cost so far."""
        if not self.vocabulary.unknown:
            return NO_PHONES, state.prior[of]
        spelled, worth = self.vocabulary.unknown.grow(state.spelled[:, of], token, self._tree.in_loop(child))
        return spelled, state.prior[of] + worth

    def _decided(self, state: BeamState) -> BeamState:
        """What the rescorer makes of words that ended a while ago is not taken back: the other hypotheses end here.

        To the n-gram model their futures are the same, so nothing else would ever decide between them.
        """
        every = self.rescorer.config.decide if self.rescorer else 0
        if self.rescorer is None or not every or state.frame % every:
            return state
        own = {id(link): link for link in state.links}  # many hypotheses share theirs
        ended = {key: links.until(link, state.frame - every) for key, link in own.items()}
        if len({link and link.name for link in ended.values()}) == 1:
            return state
        likely = self.endings(state, self.rescorer.config.hypotheses, self.rescorer.config.margin)
        best = likely[0].place
        old = [ended[id(state.links[ending.place])] for ending in likely]
        if len({link and link.name for link in old}) > 1:
            best, _ = self.rescorer.order(likely, self.vocabulary.lm, self.config)[0]
        said = ended[id(state.links[best])]
        if said is None:
            return state
        going = {key for key, link in own.items() if links.begins(link, said)}
        return state.chosen(np.flatnonzero([id(link) in going for link in state.links]))

    def _without_pauses(self, state: BeamState) -> BeamState:
        """Nobody pauses for long within a word: then it was none, and the next one may begin."""
        broken = state.word_end < state.frame - self.config.pause
        if not broken.any() or not (broken := broken & (state.node != ROOT)).any():
            return state
        nothing = np.full(len(broken), 2**31 - 1, dtype=np.int32)  # tells it from the same words without the break
        return replace(
            state,
            node=np.where(broken, ROOT, state.node),
            prior=state.prior - ABANDONED * broken,
            history=np.where(broken, longer(state.history, nothing), state.history),
            spelled=np.where(broken, np.uint64(0), state.spelled),
        )

    def _settle(self, state: BeamState, lp: Floats, letter_frame: int, candidates: Candidates) -> BeamState:
        """The survivors, with the frames and the evidence of their open words brought up to date."""
        places, blank, label = candidates.survivors(self.config.histories, self.config.hypotheses)
        source, last, history = candidates.source[places], candidates.last[places], candidates.history[places]
        spelled = candidates.spelled[:, places] if self.vocabulary.unknown else np.zeros((0, len(places)), np.uint64)
        grew = places >= candidates.stay
        opens = grew & (state.node[source] == ROOT)
        evidence = np.where(opens, 0.0, state.evidence.take(source, axis=1))
        told = np.where(grew, lp[last], 0.0)
        evidence[0] += told
        np.minimum(evidence[1], told, out=evidence[1])  # none is above 0
        evidence[2] += grew
        evidence[3] += lp[BLANK]  # frames that `step` skips add next to nothing
        word_start = np.where(opens, state.frame, state.word_start[source])
        word_end = np.where(grew, state.frame, state.word_end[source])
        words = state.links[source]
        open_ = len(candidates.source) - len(candidates.word)
        said = (places >= open_).nonzero()[0]
        which = places[said] - open_
        sums = zip(*evidence[:, said].tolist(), candidates.lm_score[which].tolist(), strict=True)
        columns = (column[said].tolist() for column in (word_start, word_end, history))
        texts, numbers = self.vocabulary.texts, candidates.word[which].tolist()
        for i, word, own, first, end, name in zip(said.tolist(), numbers, sums, *columns, strict=True):
            before, text = words[i], texts[word]
            if self.vocabulary.unknown and word == self.vocabulary.lm.unknown:
                text = self.vocabulary.unknown.name(state.spelled[:, source[i]], int(last[i]))
            if before:
                words[i] = Link(before, text, first, end, own, before.begin, before.depth + 1, name)
            else:
                words[i] = Link(None, text, first, end, own, first, 1, name)
        return BeamState(
            frame=state.frame + 1,
            letter_frame=letter_frame,
            node=candidates.node[places],
            last=last,
            lm=candidates.lm[places],
            history=history,
            spelled=spelled,
            blank=blank,
            label=label,
            prior=candidates.prior[places],
            word_start=word_start,
            word_end=word_end,
            evidence=evidence,
            links=words,
        )

    def spoken(self, state: BeamState) -> Spoken | None:
        link = state.links[self._best_said(state)]
        return Spoken(link.begin, state.frame - 1 - state.letter_frame) if link else None

    def hypothesis(self, state: BeamState) -> Hypothesis:
        best = int(self._rank(state).argmax())
        if state.frame - state.word_end[best] > PATIENCE:  # nobody goes on with its open word
            best = self._best_said(state)
        words, stable = links.words_of(state.links[best]), links.shared(state.links.tolist())
        while len(words) > stable and state.frame - 1 - words[-1].last_frame < self.config.settle:
            words = words[:-1]  # a longer word, or another, is still likely
        return Hypothesis(words, stable)

    def final(self, state: BeamState) -> Hypothesis:
        words = links.words_of(state.links[self._ended(state)[0][0]])
        return Hypothesis(words, len(words))

    def n_best(self, state: BeamState, n: int) -> list[tuple[str, float]]:
        found: dict[str, float] = {}
        for i, log_prob in self._ended(state):
            text = " ".join(word.text for word in links.words_of(state.links[i]))
            found.setdefault(text, log_prob)
        return list(found.items())[:n]

    def _best_said(self, state: BeamState) -> int:
        """The best hypothesis without an open word; the best of all, where all have one."""
        whole = (state.node == ROOT).nonzero()[0]
        if not len(whole):
            return int(self._rank(state).argmax())
        return int(whole[(state.total[whole] + state.prior[whole]).argmax()])

    def _rank(self, state: BeamState) -> Floats:
        rank: Floats = state.total + state.prior + self._hope[state.node]
        return rank

    def _ended(self, state: BeamState) -> list[tuple[int, float]]:
        """The hypotheses without an open word, as sentences that end here, the best first.

        With a rescorer: one of each of the likeliest texts. Asked more than once of a state, so kept beside it.
        """
        if self.rescorer is None:
            whole, score, _ = self._whole(state)
            return list(zip(whole.tolist(), score.tolist(), strict=True))
        asked = state.__dict__.get("ended")
        if asked is None or asked[0] is not self:
            endings = self.endings(state, self.rescorer.config.hypotheses)
            asked = self, self.rescorer.order(endings, self.vocabulary.lm, self.config)
            state.__dict__["ended"] = asked
        return list(asked[1])

    def endings(self, state: BeamState, texts: int, margin: float = np.inf) -> list[Ending]:
        """Up to so many different texts, as sentences that end here, the best first by the n-gram model alone.

        margin: none that is so many nats less likely than the best.
        """
        whole, score, ends = self._whole(state)
        _, first = np.unique(state.history[whole], return_index=True)
        chosen = np.sort(first)[:texts]
        chosen = chosen[score[chosen] >= score[0] - margin]
        return [
            Ending(int(whole[i]), links.chain(state.links[whole[i]]), float(score[i]), float(ends[i])) for i in chosen
        ]

    def _whole(self, state: BeamState) -> tuple[Ints, Floats, NDArray[np.float32]]:
        """The hypotheses without an open word, the best first: places, log-probabilities, those of the end in them."""
        whole = np.flatnonzero(state.node == ROOT)
        whole = whole if len(whole) else np.arange(len(state.node))
        ends = self.vocabulary.lm.end(state.lm[whole])
        score = self._rank(state)[whole] + self.config.lm_weight * ends
        order = np.argsort(-score, kind="stable")
        return whole[order], score[order], ends[order]

    def next_utterance(self, state: BeamState) -> BeamState:
        # The hypotheses with just the words that were said go on: a word that is open is not lost, and
        # a token that still sounds is not taken for a new one.
        said = self._ended(state)[0][0]
        begun = state.prior - state.prior[said] if self.vocabulary.unknown else np.zeros(len(state.prior))
        kept = np.flatnonzero(state.history == state.history[said])
        state = state.chosen(kept)
        total = state.total.max()
        fresh = self._fresh(0, 0)
        return replace(
            state,
            lm=np.repeat(fresh.lm, len(kept)),
            history=np.repeat(fresh.history, len(kept)),
            blank=state.blank - total,
            label=state.label - total,
            prior=begun[kept],  # what the phones of an unknown word that is open have cost
            links=np.repeat(fresh.links, len(kept)),
        )

    def pack(self, state: BeamState) -> Any:
        return [self.vocabulary.checksum, state.pack()]

    def unpack(self, values: Any) -> BeamState:
        checksum, state = values
        if checksum != self.vocabulary.checksum:
            raise StreamError("taken with other words; load the language model or grammar of that time to continue")
        return BeamState.unpack(state, self._rows)
