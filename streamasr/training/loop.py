"""The training loop: one process or several, interrupted and continued without a trace."""

from __future__ import annotations

import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from streamasr.errors import StreamasrError
from streamasr.manifest import Utterance
from streamasr.nn.acoustic_model import AcousticModel, ModelConfig
from streamasr.training import evaluation
from streamasr.training.checkpoint import begin, load_checkpoint, save_checkpoint
from streamasr.training.config import TrainConfig
from streamasr.training.curve import plot_curve
from streamasr.training.data import RATE, AudioCache, Batch, BatchDataset, encode_text
from streamasr.training.objective import Objective
from streamasr.training.optimiser import descend, flushed_denormals, learning_rate, make_optimisers

Lexicon = dict[str, list[list[str]]]

# Keys of TrainConfig that a run may be continued with another value of.
ADJUSTABLE = ("epochs", "heard_hours", "synthetic_epochs", "checkpoint_minutes", "kept_checkpoints", "dev_utterances")


@dataclass(frozen=True)
class Corpus:
    """What a run learns from and what it is watched on."""

    train: Sequence[Utterance]
    dev: Sequence[Utterance]
    noise: Sequence[Path]
    lexicon: Lexicon
    cache: Path  # folder for decoded audio
    synthetic: Sequence[Utterance] = ()  # learned from as `train`, but perhaps not to the end
    rooms: Sequence[Path] = ()  # impulse responses that speech is heard through


class Trainer:
    """One run in one folder: log.jsonl, curve.png, last.pt (where to go on), epoch-N.pt (the last few)."""

    def __init__(
        self,
        config: TrainConfig,
        heads: dict[str, list[str]],
        corpus: Corpus,
        folder: Path,
        start: AcousticModel | None = None,  # whose weights a new run begins with
        teacher: AcousticModel | None = None,  # whose opinion counts beside the texts (config.teaching)
    ) -> None:
        self.config = config
        self.corpus = corpus
        self.folder = folder
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        torch.manual_seed(config.seed)
        self.cache = AudioCache([u.audio for u in (*corpus.train, *corpus.synthetic)], corpus.cache)
        self.noise, self.rooms = (AudioCache(paths, corpus.cache) for paths in (corpus.noise, corpus.rooms))
        if config.augment.room_probability and not corpus.rooms:
            raise StreamasrError("room_probability needs rooms; `python -m recipes.mini.rooms` makes some")
        self.dev = corpus.dev[:: max(1, len(corpus.dev) // config.dev_utterances)][self.rank :: self.world]
        self.dev_cache = AudioCache([u.audio for u in self.dev], corpus.cache)
        self.model = config.make_model(heads)
        self.objective = Objective(self.model, config, teacher)
        self.optimisers = make_optimisers(self.model, config.optimiser)
        self.epoch, self.batch, self.step, self.audio_s, self.spent_s = 0, 0, 0, 0.0, 0.0
        if (folder / "last.pt").exists():
            self._resume(load_checkpoint(folder / "last.pt"))
        elif start is not None:
            begin(self.model, start)
        else:
            self._measure_features()
        self._expect_the_same_place()
        self.parallel: nn.Module = self.objective
        if self.world > 1:
            self.parallel = nn.parallel.DistributedDataParallel(self.objective, find_unused_parameters=False)

    @flushed_denormals()
    def run(self) -> None:
        """Train to the end of the last epoch, or of the last hour."""
        last_save = time.monotonic()
        if self.rank == 0 and self._progress(0.0) >= 1.0:
            print(f"{self.folder}: trained to its end; more epochs, or a new folder, would go on")
        while self._progress(0.0) < 1.0:
            dataset = self._dataset()
            per_rank = len(dataset) // self.world
            if not per_rank:
                raise StreamasrError(
                    f"{len(dataset)} batches for {self.world} processes; "
                    "use fewer processes, more speech or a smaller batch_s"
                )
            total = "" if self.config.heard_hours else f"/{math.ceil(self.config.epochs)}"
            bar = tqdm(total=per_rank, initial=self.batch, desc=f"epoch {self.epoch + 1}{total}", disable=self.rank > 0)
            for batch in self._batches(dataset, per_rank):
                started = time.monotonic()
                loss, norm = self._update(batch, self._progress(self.batch / per_rank))
                self.batch += 1
                self.step += 1
                self.audio_s += self._heard_s(batch)
                self.spent_s += time.monotonic() - started
                bar.update()
                self._report(loss, norm, self.batch / per_rank, bar)
                if time.monotonic() - last_save > 60.0 * self.config.checkpoint_minutes:
                    self._save("last.pt")
                    last_save = time.monotonic()
                if self.config.heard_hours and self._progress(0.0) >= 1.0:
                    break
            bar.close()
            self.epoch, self.batch = self.epoch + 1, 0
            self._end_epoch()
            last_save = time.monotonic()

    def _heard_s(self, batch: Batch) -> float:
        """Seconds of audio that all processes have just heard: they must agree how far the run has come."""
        samples = batch.lengths.sum()
        if self.world > 1:
            dist.all_reduce(samples)
        return float(samples) / RATE

    def _progress(self, part: float) -> float:
        """How much of the run is done, 0..1, `part` of the present epoch being done."""
        if self.config.heard_hours:
            return min(self.audio_s / (3600.0 * self.config.heard_hours), 1.0)
        return (self.epoch + part) / self.config.epochs

    def _dataset(self) -> BatchDataset:
        until = self.config.synthetic_epochs
        return BatchDataset(
            [*self.corpus.train, *(self.corpus.synthetic if not until or self.epoch < until else ())],
            self.cache,
            self.noise,
            self.model.config.heads,
            self.corpus.lexicon,
            self.config.batch,
            self.config.augment,
            (self.config.seed, self.epoch),
            self.rooms,
        )

    def _batches(self, dataset: BatchDataset, per_rank: int) -> Iterator[Batch]:
        numbers = [i * self.world + self.rank for i in range(self.batch, per_rank)]
        loader: DataLoader[Any] = DataLoader(
            dataset,
            batch_size=None,
            sampler=numbers,
            num_workers=1,
            prefetch_factor=4,
            multiprocessing_context="forkserver",  # a fork of this process would soon hold a copy of all its memory
        )
        yield from loader

    def _update(self, batch: Batch, progress: float) -> tuple[float, float]:
        """One step: the loss, and the norm of its gradient."""
        # Every draw depends on the step alone, so a continued run draws what an unbroken one would.
        torch.manual_seed(hash((self.config.seed, self.step, self.rank)) % 2**63)
        self.parallel.train()
        loss: Tensor = self.parallel(batch, torch.default_generator)
        rate = learning_rate(self.config, self.step, progress)
        norm = descend(self.model, self.optimisers, loss, rate, self.config.optimiser)
        return float(loss.detach()), norm

    def _report(self, loss: float, norm: float, part: float, bar: Any) -> None:
        if self.rank > 0:
            return
        speed = self.audio_s / max(self.spent_s, 1e-9)
        left_h = self.spent_s / 3600.0 * (1.0 / max(self._progress(part), 1e-9) - 1.0)
        bar.set_postfix_str(f"loss {loss:.3f}, {speed:.0f} h/h, {left_h:.1f} h left")
        if self.step % 20 == 0:
            done = round(self.epoch + part, 3)
            values = {"loss": round(loss, 4), "norm": round(norm, 4), "hours_per_hour": round(speed, 1)}
            self._log(epoch=done, step=self.step, **values)

    def _log(self, **values: Any) -> None:
        if self.rank == 0:
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(json.dumps({**values, "spent_s": round(self.spent_s)}) + "\n")

    def _end_epoch(self) -> None:
        self._save(f"epoch-{self.epoch}.pt")
        self._save("last.pt")
        rates = self._evaluate()
        if self.rank == 0:
            self._log(
                epoch=self.epoch, step=self.step, **{f"dev_{name}": round(rate, 4) for name, rate in rates.items()}
            )
            print(f"epoch {self.epoch}: " + ", ".join(f"{name} {100 * rate:.1f} %" for name, rate in rates.items()))
            plot_curve(self.folder)
            (self.folder / f"epoch-{self.epoch - self.config.kept_checkpoints}.pt").unlink(missing_ok=True)

    def _evaluate(self) -> dict[str, float]:
        self.model.eval()
        found = evaluation.greedy(self.model, self.dev_cache)
        heads = self.model.config.heads
        targets = [
            {head: None if t is None else [heads[head][k] for k in t] for head, t in encoded.items()}
            for encoded in (encode_text(u.text, heads, self.corpus.lexicon) for u in self.dev)
        ]
        counts = evaluation.errors(self.dev, found, targets)
        # The same rows in every process, also where its share of dev has no target for a head.
        names = ["words", *heads]
        rows = [counts.get(name, evaluation.ErrorCount()) for name in names]
        table = torch.tensor([[c.edits, c.length] for c in rows], dtype=torch.float64)
        if self.world > 1:
            dist.all_reduce(table)
        return {name: float(edits / max(length, 1)) for name, (edits, length) in zip(names, table, strict=True)}

    def _save(self, name: str) -> None:
        if self.rank == 0:
            values = {
                "config": self.config.to_dict(),
                "model_config": self.model.config.to_dict(),
                "model": self.model.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
                "epoch": self.epoch,
                "batch": self.batch,
                "step": self.step,
                "audio_s": self.audio_s,
                "spent_s": self.spent_s,
                "world": self.world,
                "sources": self._sources(),
            }
            save_checkpoint(self.folder / name, values)

    def _sources(self) -> dict[str, float]:
        """Seconds of speech of each source that is learned from."""
        seconds: dict[str, float] = defaultdict(float)
        for utterance in (*self.corpus.train, *self.corpus.synthetic):
            seconds[utterance.source] += utterance.seconds
        return {source: round(length, 2) for source, length in sorted(seconds.items())}

    def _resume(self, saved: dict[str, Any]) -> None:
        if ModelConfig.from_dict(saved["model_config"]) != self.model.config:
            raise StreamasrError(
                f"{self.folder}/last.pt holds another network than the configuration asks for; "
                "continue it with its own configuration, or start in a new folder"
            )
        began = TrainConfig.from_dict(saved["config"], f"{self.folder}/last.pt")  # keys that came later get defaults
        ours, theirs = ({**c.to_dict(), **dict.fromkeys(ADJUSTABLE)} for c in (self.config, began))
        ours["speech"], theirs["speech"] = (sources := self._sources()), saved.get("sources", sources)
        if different := [key for key in ours if ours[key] != theirs[key]]:
            raise StreamasrError(
                f"{self.folder}/last.pt began with another {', '.join(different)}; continue it with its own "
                "configuration, or start in a new folder"
            )
        self.model.load_state_dict(saved["model"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        self.epoch, self.batch, self.step = saved["epoch"], saved["batch"], saved["step"]
        self.audio_s, self.spent_s = saved["audio_s"], saved["spent_s"]
        if saved["world"] != self.world:  # another number of processes: keep the place in the epoch
            self.batch = self.batch * saved["world"] // self.world

    def _expect_the_same_place(self) -> None:
        """Processes on several machines must all have found the same last.pt, or none."""
        if self.world > 1:
            places = [None] * self.world
            dist.all_gather_object(places, (self.epoch, self.batch, self.step))
            if len(set(places)) > 1:
                raise StreamasrError(
                    f"the processes found different checkpoints in {self.folder} (epoch, batch, step: {places}); "
                    "share the folder between the machines, or copy last.pt to all of them"
                )

    def _measure_features(self) -> None:
        """Mean and deviation of each mel band over some training audio, once, before the first step."""
        model = self.model
        front = model.front.stages
        rows = torch.cat(
            [
                front["logmel"].step(  # type: ignore[operator]
                    model.pad(torch.from_numpy(self.cache[i])[None]),
                    front["logmel"].zero_state(1),  # type: ignore[operator]
                )[0][0]
                for i in range(0, len(self.cache), max(1, len(self.cache) // 200))
            ]
        )
        front["normalise"].mean.copy_(rows.mean(0))  # type: ignore[operator]
        front["normalise"].scale.copy_(1.0 / rows.std(0).clamp_min(0.1))  # type: ignore[operator]


def start_processes() -> None:
    """Under torchrun, meet the other processes; one thread each unless OMP_NUM_THREADS says more."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
