"""Train the recurrent language model: python -m recipes.lm.train; called again, it goes on where it was stopped.

A new run begins with nothing, or with the weights of a graph (--init), to train that one further.

Words are those of WORK/en.lm, sentences stand alone. The learning rate falls over the minutes that are planned,
while the share of the transcripts in what is read rises: they are nearest to what the recogniser hears.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from export.recurrent import read_word_model
from recipes.lm.text import CORPORA, Ids, Vocabulary, read_lines
from recipes.lm.tokens import Corpus, Tokenising, batches, tokenise
from recipes.mini.data import LETTERS
from recipes.program import run
from streamasr.bundle import write_whole
from streamasr.decoding.ngram import Ngram
from streamasr.decoding.recurrent import fingerprint
from streamasr.errors import StreamasrError
from streamasr.manifest import read_manifest
from streamasr.nn.word_model import WordModel, WordModelConfig
from streamasr.training.checkpoint import load_checkpoint, save_checkpoint
from streamasr.training.optimiser import flushed_denormals

CHUNK = 200_000  # words that are sorted into batches together
BATCH = 2048  # words
RATE, WARM_UP = 3e-3, 200
SHARES = (0.25, 0.7)  # of the transcripts in what is read, at the beginning and at the end
EXACT, SAMPLED = 1000, 1000  # tokens: the frequent ones are always summed over, of the others a sample
NEVER = -1e4  # bias of <s>, which goes in at every beginning and never comes out, so that no sample would hold it down
SAVE_S, LOG_S = 600.0, 60.0


def read_streams(shared: Path, work: Path, vocabulary: Vocabulary) -> list[Ids]:
    """The numbers of all words of each corpus, kept in `work` for the next time."""
    streams = []
    for name, file, _ in CORPORA:
        path = work / f"{name}-{fingerprint(vocabulary.words)[:12]}.npy"  # other words, other numbers
        if not path.exists():
            content = io.BytesIO()
            np.save(content, vocabulary.encode(read_lines(shared / "text" / file)))
            write_whole(path, content.getvalue())
        streams.append(np.load(path))
    return streams


class Sampler:
    """The sum of the softmax over the frequent tokens and a sample of the others (Bengio and Senecal 2003)."""

    def __init__(self, frequency: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        others = frequency[EXACT:] ** 0.75
        self.proposal = torch.from_numpy(others / others.sum())
        # What a sampled token's logit is lowered by: the log of how often it is expected among the sampled.
        self.correction = torch.log(SAMPLED * self.proposal).float()
        self.cumulative = self.proposal.cumsum(0)

    def loss(self, model: WordModel, y: Tensor, target: Tensor) -> Tensor:
        """(M, embedding), (M,) tokens -> mean cross-entropy, nearly."""
        drawn = torch.searchsorted(self.cumulative, torch.rand(SAMPLED, dtype=torch.float64))
        drawn.clamp_(max=len(self.proposal) - 1)
        chosen = torch.cat([torch.arange(EXACT), drawn + EXACT, torch.zeros(1, dtype=torch.int64)])
        offset = model.bias[chosen] - torch.cat([torch.zeros(EXACT), self.correction[drawn], torch.zeros(1)])
        logits = nn.functional.linear(y, model.embedding(chosen), offset).float()
        row, column = (target[:, None] == chosen[None, EXACT:-1]).nonzero(as_tuple=True)
        logits[row, column + EXACT] = -math.inf
        # The last column is for targets that are not among the frequent ones.
        own, rest = (y.float() * model.embedding(target)).sum(1) + model.bias[target], target >= EXACT
        logits[:, -1] = torch.where(rest, own, -math.inf)
        return nn.functional.cross_entropy(logits, torch.where(rest, EXACT + SAMPLED, target))


@torch.no_grad()
def dev_loss(model: WordModel, sentences: list[Tensor], share: Tensor) -> float:
    """Mean negative log-probability of the words of dev and of sentence ends, known ones."""
    total, counted = 0.0, 0
    for words in sentences:
        tokens = model.token[words]
        y, _ = model.step(tokens[None, :-1], model.zero_state(1))
        known = words[1:] != 0
        log_prob = y[0].gather(1, tokens[1:, None])[:, 0] + share[words[1:]]
        total -= float(log_prob[known].sum())
        counted += int(known.sum())
    return total / counted


class Trainer:
    """One run in one folder: log.txt, last.pt."""

    def __init__(self, arguments: argparse.Namespace, vocabulary: Vocabulary, streams: list[Ids]) -> None:
        torch.manual_seed(0)
        self.folder: Path = arguments.work
        self.seconds = 60.0 * arguments.minutes
        weights = [weight for _, _, weight in CORPORA]
        size = len(vocabulary.words) + 2
        counts = sum(
            w * np.bincount(s, minlength=size).astype(np.float64) for w, s in zip(weights, streams, strict=True)
        )
        tokenising: Tokenising = tokenise(vocabulary, np.asarray(counts), arguments.frequent)
        config = WordModelConfig(size, tokenising.size, arguments.embedding, arguments.width)
        self.model = WordModel(config)
        self.model.token.copy_(torch.from_numpy(tokenising.token))
        self.model.share.copy_(torch.from_numpy(tokenising.share))
        if arguments.init:
            self._begin(read_word_model(arguments.init, vocabulary.words), arguments.init)
        else:
            with torch.no_grad():
                self.model.bias.copy_(torch.from_numpy(np.log(tokenising.frequency + 1e-9)))
        self.bfloat16: bool = arguments.bfloat16
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=0.0, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.sampler = Sampler(tokenising.frequency)
        self.corpora = [Corpus.of(stream, vocabulary, tokenising, seed) for seed, stream in enumerate(streams)]
        self.spent_s, self.step, self.words = 0.0, 0, 0
        utterances = read_manifest(arguments.shared / "speech" / "dev.jsonl", LETTERS)[::4]
        lines = [vocabulary.encode([utterance.text]) for utterance in utterances]
        self.dev = [torch.from_numpy(line.astype(np.int64)) for line in lines]
        self.vocabulary = fingerprint(vocabulary.words)
        if (self.folder / "last.pt").exists():
            self._resume(load_checkpoint(self.folder / "last.pt"))
        with torch.no_grad():
            self.model.bias[self.model.token[vocabulary.start]] = NEVER
        self.log(f"{sum(p.numel() for p in self.model.parameters()):,} parameters, {config}")

    def _begin(self, other: WordModel, path: Path) -> None:
        """With the weights of another one, which must read the same tokens."""
        if other.config != self.model.config or not torch.equal(other.token, self.model.token):
            raise StreamasrError(f"{path}: has {other.config} or other tokens, expected {self.model.config}")
        share = self.model.share.clone()  # not as the graph rounded it
        self.model.load_state_dict(other.state_dict())
        self.model.share.copy_(share)

    def log(self, line: str) -> None:
        """To the file and to the terminal."""
        with (self.folder / "log.txt").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    @flushed_denormals()
    def run(self) -> None:
        """Until the planned time is spent."""
        began, logged, saved, losses = time.monotonic() - self.spent_s, self.spent_s, self.spent_s, []
        while self.spent_s < self.seconds:
            progress = self.spent_s / self.seconds
            share = SHARES[0] + (SHARES[1] - SHARES[0]) * progress
            sentences = self.corpora[0].take(int(share * CHUNK)) + self.corpora[1].take(int((1 - share) * CHUNK))
            rng = np.random.default_rng(self.words)
            for x, target in batches(sentences, BATCH, rng):
                losses.append(self._descend(torch.from_numpy(x), torch.from_numpy(target)))
                self.words += int((target >= 0).sum())
                self.spent_s = time.monotonic() - began
                if self.spent_s - logged >= LOG_S:
                    logged = self.spent_s
                    mean = sum(losses) / len(losses)
                    self.log(f"{self.spent_s:.0f} s, {self.words:,} words, step {self.step}, loss {mean:.3f}")
                    losses = []
                if self.spent_s >= self.seconds:
                    break
            if self.spent_s - saved >= SAVE_S or self.spent_s >= self.seconds:
                saved = self.spent_s
                self._save()
                loss = dev_loss(self.model, self.dev, self.model.share)
                self.log(f"{self.spent_s:.0f} s: a quarter of dev {loss:.3f}, perplexity {math.exp(loss):.1f}")

    def _descend(self, x: Tensor, target: Tensor) -> float:
        rate = RATE * min(1.0, (self.step + 1) / WARM_UP)
        rate *= 0.5 * (1.0 + math.cos(math.pi * min(1.0, self.spent_s / self.seconds)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bfloat16):
            y, _ = self.model.hidden(x, self.model.zero_state(len(x)))
            there = target >= 0
            loss = self.sampler.loss(self.model, y[there], target[there])
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if torch.isfinite(norm):
            self.optimiser.step()
        self.step += 1
        return float(loss.detach())

    def _save(self) -> None:
        values = {
            "model": self.model.state_dict(),
            "model_config": self.model.config.to_dict(),
            "vocabulary": self.vocabulary,
            "optimiser": self.optimiser.state_dict(),
            "places": [corpus.place for corpus in self.corpora],
            "spent_s": self.spent_s,
            "step": self.step,
            "words": self.words,
        }
        save_checkpoint(self.folder / "last.pt", values)

    def _resume(self, values: dict[str, Any]) -> None:
        config = self.model.config.to_dict()
        if (values.get("vocabulary"), values["model_config"]) != (self.vocabulary, config):
            raise StreamasrError(
                f"{self.folder}/last.pt learned other words or has another shape than what is asked for; "
                "start in a new folder with --work"
            )
        self.model.load_state_dict(values["model"])
        self.optimiser.load_state_dict(values["optimiser"])
        for corpus, place in zip(self.corpora, values["places"], strict=True):
            corpus.place = place
        self.spent_s, self.step, self.words = values["spent_s"], values["step"], values["words"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--lm", type=Path, default=Path("work/lm/en.lm"), help="the n-gram model whose words these are")
    parser.add_argument("--work", type=Path, default=Path("work/rnnlm"))
    parser.add_argument("--init", type=Path, metavar="RNN", help="begin with the weights of this graph")
    parser.add_argument("--minutes", type=float, default=65.0)
    parser.add_argument("--bfloat16", action="store_true", help="mixed precision; pays on CPUs with avx512_bf16")
    parser.add_argument("--frequent", type=int, default=12_000, help="words that are tokens of their own")
    parser.add_argument("--embedding", type=int, default=96)
    parser.add_argument("--width", type=int, default=320)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    vocabulary = Vocabulary(Ngram.open(arguments.lm).words)
    streams = read_streams(arguments.shared, arguments.work, vocabulary)
    Trainer(arguments, vocabulary, streams).run()


if __name__ == "__main__":
    run(main, "interrupted; called again, it goes on from the last minutes that were saved")
