"""Train members of the family, one after the other: python -m recipes.family.train [NAME...]

Called again, the same command goes on where it was stopped; members that have heard all they should are passed over.
An experiment gives each the same minutes; how much audio that is, recipes.family.speed has measured. With 0 minutes the
configuration says how long they learn.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from recipes.family.adapted import adapt
from recipes.family.members import FAMILY, Experiment
from recipes.family.speed import read_speeds
from recipes.mini.data import corpus, synthetic
from recipes.program import run
from streamasr.errors import ManifestError
from streamasr.training.checkpoint import epochs, load_model
from streamasr.training.loop import Trainer, start_processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all members")
    parser.add_argument("--experiment", type=Path, default=FAMILY, metavar="TOML")
    parser.add_argument("--shared", type=Path, default=Path("../shared"))
    parser.add_argument("--cache", type=Path, default=Path("work/cache"), help="folder for decoded audio")
    parser.add_argument("--work", type=Path, help="in place of the experiment's folder")
    parser.add_argument("--minutes", type=float, help="for each, in place of the experiment's")
    parser.add_argument("--seed", type=int, help="another one, in folders NAME-SEED")
    arguments = parser.parse_args()
    start_processes()
    experiment = Experiment.read(arguments.experiment)
    members = experiment.choose(arguments.names)
    timed = [member.name for member in members if arguments.minutes or member.minutes]
    speeds = read_speeds(experiment.work, timed) if timed else {}
    also = synthetic() if any(member.synthetic for member in members) else []
    speech = corpus(arguments.shared, arguments.cache, also)
    for member in members:
        minutes = member.minutes if arguments.minutes is None else arguments.minutes
        speed = speeds.get(member.name, 0.0) / 60.0  # hours of audio in a minute
        name, config = member.name, replace(member.config, heard_hours=speed * (minutes - member.labels))
        if arguments.seed is not None:
            name, config = f"{name}-{arguments.seed}", replace(config, seed=arguments.seed)
        work = arguments.work or experiment.work
        folder = work / name
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{name}: {member.says}", flush=True)
        other = member.teacher or member.adapts
        if other and not epochs(work / other):
            raise ManifestError(f"{name} needs {other}, which has not been trained in {work}: train that one first")
        model = load_model(epochs(work / other)[-1:]) if other else None
        own = member.speech(speech)
        if model and member.adapts:
            adapt(model, own, config, folder)
        else:
            trainer = Trainer(config, member.heads(u.text for u in own.train), own, folder, teacher=model)
            if member.labels and not trainer.step:
                from recipes.family.labels import learn_labels  # needs PocketSphinx, which the other members do not

                learn_labels(trainer, speed * member.labels)
            trainer.run()


if __name__ == "__main__":
    run(main)
