"""Training, as the story of one step: train, report, evaluate, sample, save; then the next.

A run is resumable at any moment. Ctrl-C ends it after the step that is being taken, with a
checkpoint; a kill costs the steps since the latest one. Resumed, it goes on as if never stopped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.checkpoint import (
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    step_of,
)
from coterie.checkpoint.retain import best_step
from coterie.foundation.errors import CoterieError, Interrupted, RunError
from coterie.foundation.event_log import read_record
from coterie.foundation.files import sha256_file
from coterie.foundation.layers import dump_yaml
from coterie.foundation.runs import RunDirectory
from coterie.generate.threads import shared_cores
from coterie.model import count
from coterie.parallel.ranks import ALONE, Ranks
from coterie.train.choices import kept_choices
from coterie.train.events import CheckpointDamaged, Evaluated, RunEnded, RunStarted
from coterie.train.flops import step_flops
from coterie.train.guard import Guard, LostRunError
from coterie.train.interrupt import InterruptRequest
from coterie.train.look import Look, StepLook
from coterie.train.machine import computing_threads, describe_machine, peak_flops
from coterie.train.method import Method
from coterie.train.monitor.publish import Observer, Publisher, Silent
from coterie.train.monitor.report import StepReporter
from coterie.train.monitor.routing import RoutingWatch
from coterie.train.randomness import set_aside
from coterie.train.regroup import stepped
from coterie.train.resume import (
    checkpoint_settings,
    find_misfit,
    require_trainable,
    restore_session,
)
from coterie.train.samples import draw_samples, write_samples
from coterie.train.saving import Saver
from coterie.train.session import Session, open_session
from coterie.train.settings import RunSettings, Status
from coterie.train.unchanged import LENGTH, check_unchanged, is_as_recorded, last_start


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        steps: optimizer steps done, earlier sessions included.
        loss: training loss of the last step, nats per token; None if no step was taken.
        validation_loss: mean nats per token over the validation split after the last step; None if
            no text is held out.
        seconds: time spent in training steps alone, earlier sessions included.
        checkpoint: the newest checkpoint.
    """

    steps: int
    loss: float | None
    validation_loss: float | None
    seconds: float
    checkpoint: Path

    def summary(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {**dataclasses.asdict(self), "checkpoint": str(self.checkpoint)}


def train(
    settings: RunSettings,
    run: RunDirectory,
    *,
    preset: str,
    observers: Sequence[Observer] = (),
    resume: bool = False,
    changed: Collection[str] | None = None,
    look: Look = StepLook,
    method: Method | None = None,
    ranks: Ranks = ALONE,
) -> TrainResult:
    """Train a model, or go on with a run from its newest sound checkpoint.

    Args:
        settings: what to do.
        run: the directory that everything is written to.
        preset: the name of what the settings came from, for the record.
        observers: called with every event, as displays and trackers are.
        resume: go on instead of beginning; a run without a checkpoint begins anew.
        changed: keys that somebody changed on purpose, where `settings` are the run's own file and
            a resumed run must else be as its checkpoint; None: `settings` were made for this call,
            and may change how long it is.
        look: looks into steps: `StepProfile` at their time, `memory_profile(…)` at their memory.
        method: what is trained on and from; None: text, from drawn weights.
        ranks: the processes that train it at once, each of which calls this; the first one alone
            writes and tells.

    Raises:
        OwnedError: another process or thread trains this run.
        RunError: the run has begun before and is not to be resumed, or does not allow the look.
        UserError: settings, data or checkpoints cannot be used.
        TrainingError: a gradient was not finite.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written and the hint says how to go on.
    """
    with contextlib.ExitStack() as held:
        held.enter_context(ranks.told())
        own = run.owned("training", new=not resume)
        ranks.from_first(lambda: held.enter_context(own))
        held.enter_context(computing_threads(settings.train.threads))
        return _train(settings, run, preset, observers, resume, changed, look, method, ranks)


def _train(
    settings: RunSettings,
    run: RunDirectory,
    preset: str,
    observers: Sequence[Observer],
    resume: bool,
    changed: Collection[str] | None,
    look: Look,
    method: Method | None,
    ranks: Ranks,
) -> TrainResult:
    if resume:
        require_trainable(run)
    with _forgetting(run):
        trackers = [tracker.build(run) for tracker in settings.train.trackers if ranks.is_first]
    told = Publisher(run, [*observers, *trackers]) if ranks.is_first else Silent(run)
    with told as publish:
        with _forgetting(run):
            kept = kept_choices(run) if resume else None
            session = open_session(settings, run, publish.notice, kept, method, ranks)
            session.publish = publish
        if resume:
            for complaint in read_record(run.events).complaints():
                publish.notice(complaint, warning=True)
        checkpoint = _restore(session, publish, changed) if resume else None
        planned = session.settings.train.steps
        if session.progress.step > planned:
            raise RunError(
                f"The run {run.name} has done {session.progress.step:,} steps already; "
                f"{planned:,} is less.",
                hint=f"Train it for longer: coterie train --resume {run.name} "
                f"train.steps={2 * session.progress.step}",
            )
        with _forgetting(run):
            looking = look(session, publish)
        ranks.from_first(lambda: run.write_config(dump_yaml(session.settings)))
        with InterruptRequest() as stop:
            training = _Training(session, publish, stop, checkpoint, looking)
            return training.run(preset, resumed_from=session.progress.step if resume else None)


@contextlib.contextmanager
def _forgetting(run: RunDirectory) -> Iterator[None]:
    """Remove the directory of a run that could not even begin; one that has begun stays."""
    try:
        yield
    except BaseException:
        if not run.config.exists():
            run.events.unlink(missing_ok=True)
            for folder in (run.samples, run.checkpoints, run.path):
                with contextlib.suppress(OSError):  # there is something in it, so it is kept
                    folder.rmdir()
        raise


def _restore(session: Session, publish: Publisher, changed: Collection[str] | None) -> Path | None:
    """Put the session where its newest sound checkpoint was; return the checkpoint."""
    start = last_start(session.run)
    if not list_checkpoints(session.run.checkpoints):
        publish.notice("The run has no checkpoint yet, so it begins anew.")
        return None
    identity = None if start is None else start.training
    path = session.group.first(
        lambda: find_checkpoint(
            session.run,
            on_damaged=lambda damaged, problem: _report_damage(publish, damaged, problem),
            also=lambda path: find_misfit(path, identity, session.method),
        )
    )
    loaded = load_checkpoint(path, verify=False)  # it was hashed just now
    restore_session(session, loaded)
    own, kept = session.settings, checkpoint_settings(path)
    if changed is None:
        untrained = loaded.state["data"] is None  # imported: everything but the model is open
        changed = ("data", "train", "seed") if untrained else LENGTH
    elif is_as_recorded(session.run, start):
        changed = tuple(RunSettings.model_fields)  # each difference was named, now or before
    for told in check_unchanged(own, kept, path, session.run, changed):
        publish.notice(told)
    return path


def _report_damage(publish: Publisher, path: Path, problem: str) -> None:
    publish(CheckpointDamaged(path=str(path), problem=problem))
    publish.notice(
        f"The checkpoint {path.name} is damaged ({problem}); the one before it is used.",
        warning=True,
    )


class _Training:
    """The phases of a run; `run` says in which order they come."""

    def __init__(
        self,
        session: Session,
        publish: Publisher,
        stop: InterruptRequest,
        checkpoint: Path | None,
        look: StepLook,
    ) -> None:
        self._session = session
        self._publish = publish
        self._stop = stop
        self._settings = session.settings.train
        self._engine = session.engine() if session.together is None else None
        self._saver = Saver(session, publish, checkpoint)
        self._look = look
        self._guard = Guard(session, publish)
        self._began = time.perf_counter()
        self._ranks = session.ranks
        self._peak_flops = peak_flops(session.precision) if self._ranks.is_first else None
        flops = functools.cache(functools.partial(step_flops, session.settings))
        self._reporter = StepReporter(
            publish, session.decoder, flops_of=lambda step: flops(session.stages.of(step)),
            peak_flops=self._peak_flops, log_every=self._settings.log_every,
            load_every=self._settings.load_every, begun=session.progress,
            sources=tuple(session.store.sources), ranks=self._ranks,
        )  # fmt: skip
        self._watch = RoutingWatch(
            self._settings.watch_every, session.decoder, session.precision, session.tokenizer,
            publish,
        )  # fmt: skip

    def run(self, preset: str, resumed_from: int | None) -> TrainResult:
        """Train to the end, whatever the end may be, and record how it came."""
        try:
            self._announce(preset, resumed_from)
            if self._session.progress.step == 0:
                self._begin()
            with self._ranks.told(), self._reporter:
                self._take_steps()
                self._saver.wait()
            self._guard.check()
        except LostRunError as error:
            raise self._rescue(error) from error
        except Interrupted as interruption:
            self._end("interrupted", interruption.message)
            raise
        except KeyboardInterrupt:
            kept = "the latest checkpoint is" if self._saver.newest else "nothing was"
            self._end("interrupted", f"stopped at once; {kept} saved")
            raise
        except Exception as error:
            message = error.message if isinstance(error, CoterieError) else repr(error)
            self._end("failed", message)
            raise
        finally:
            self._look.close()
        self._end("finished", "")
        progress = self._session.progress
        assert self._saver.newest is not None
        return TrainResult(
            steps=progress.step,
            loss=progress.loss,
            validation_loss=progress.validation_loss,
            seconds=progress.train_seconds,
            checkpoint=self._saver.newest,
        )

    def _begin(self) -> None:
        """Show and keep, as far as asked for, what the model is before it has learnt anything."""
        if self._settings.sample_every != 0:
            self._sample()
        if self._settings.checkpoint_first and self._saver.newest is None:
            self._save()

    def _take_steps(self) -> None:
        """Train, report, evaluate, sample, save, until the last step or an interruption."""
        session, progress, settings = self._session, self._session.progress, self._settings
        with session.loader() as loader:
            session.method.describe(session, loader, self._publish.notice)
            batches = self._look.read(loader.iterate(progress.step, settings.prefetch))
            while progress.step < settings.steps and not self._asked() and not self._is_over():
                # Train: waiting for the batch is part of the step's time, what follows is not.
                begin = time.perf_counter()
                self._ranks.at(f"step {progress.step + 1:,}")
                shared_cores().look()
                with self._look.step():
                    result = stepped(session, batch := next(batches), self._saver.wait)
                progress.advance(
                    tokens=(size := session.stages.of(progress.step).tokens),
                    seconds=time.perf_counter() - begin,
                    loss=result.loss,
                )
                # Report: what the step did, for whoever listens.
                self._reporter.decoder = self._watch.decoder = session.decoder
                last, padding = progress.step == settings.steps, session.method.padding(batch, size)
                self._reporter.step_done(progress, result, last=last, padding=padding)
                self._watch.step_done(progress.step, batch)
                self._guard.look()
                self._saver.look()
                # Evaluate and sample: how good the model is now. Training does not notice.
                judged = self._is_due(settings.spacing(settings.evaluate_every))
                if judged:
                    self._evaluate()
                if self._samples_are_due():
                    self._sample()
                # Save: from here the run can go on, bit for bit.
                best = settings.patience and judged and progress.stale == 0
                if best or self._is_due(settings.spacing(settings.checkpoint_every)):
                    self._save()
        if self._session.method.halted is not None:
            self._save_last()
            self._publish.notice(f"Stopped early: {self._session.method.halted}.", warning=True)
        elif self._is_stale():
            self._stop_early()
        elif progress.step < settings.steps:
            self._leave()

    def _asked(self) -> bool:
        """Whether somebody asked any process to end."""
        return self._ranks.any(bool(self._stop))

    def _is_over(self) -> bool:
        """Whether the run ends before its last step."""
        return self._is_stale() or self._session.method.halted is not None

    def _is_stale(self) -> bool:
        """Whether the validation loss has stood still for longer than the run waits."""
        return (self._settings.patience or math.inf) <= self._session.progress.stale

    def _stop_early(self) -> None:
        """End before the last step, for nothing better comes."""
        progress, run = self._session.progress, self._session.run
        self._save_last()
        least = self._settings.improvement
        margin = f" by more than {least:g}" if least else ""
        self._publish.notice(
            f"Stopped early after step {progress.step:,}: {progress.stale} evaluations in a row "
            f"found nothing lower than {progress.best_loss:.4f}{margin}. The best checkpoint is "
            f"kept: coterie generate {run.name} --step {best_step(run.checkpoints)}"
        )

    def _is_due(self, every: int) -> bool:
        """Whether something done every so many steps, and after the last one, is to be done now."""
        step = self._session.progress.step
        return step == self._settings.steps or (every > 0 and step % every == 0)

    def _samples_are_due(self) -> bool:
        settings = self._settings
        if settings.sample_every is None:
            return self._is_due(settings.spacing(settings.evaluate_every))
        every = settings.spacing(settings.sample_every)
        return every > 0 and self._is_due(every)

    def _evaluate(self) -> None:
        self._guard.check()
        session = self._session
        with set_aside(), session.stepper.averaged():
            found = session.method.evaluate(session)
        if not found:
            return
        whole = Evaluated.together("valid", found)
        self._judge(whole.loss)
        self._publish(whole)  # first, as views take it for what is held out
        for each in found if len(session.store.sources) > 1 else ():
            self._publish(each)

    def _judge(self, loss: float) -> None:
        """Take note of a validation loss, and lower the learning rate if the schedule says so."""
        progress, schedule = self._session.progress, self._settings.schedule
        progress.evaluated(loss, self._settings.improvement)
        if schedule.stands_still(progress.stale):
            progress.plateaus += 1
            self._session.stepper.lowered = schedule.lowered(progress.plateaus)
            self._publish.notice(
                f"The validation loss stands still; the learning rate is "
                f"{self._session.stepper.lowered:.3g} of what it was."
            )

    def _sample(self) -> None:
        self._guard.check()
        session = self._session
        with session.stepper.averaged():
            if (engine := self._engine or session.replica_engine()) is None:
                return  # another process writes
            samples = draw_samples(
                engine, self._settings.prompts, session.settings.sample, session.progress.step
            )
        write_samples(session.run, samples)
        for sample in samples:
            self._publish(sample)

    def _save(self) -> None:
        self._guard.check()  # what was read since the last time must have been the text
        self._saver.save()

    def _save_last(self) -> None:
        """Save unless this very step is saved already, and wait until it is on the disk."""
        self._saver.wait()
        newest = self._saver.newest
        if newest is None or step_of(newest) != self._session.progress.step:
            self._save()
            self._saver.wait()

    def _rescue(self, lost: LostRunError) -> CoterieError:
        """Save the model elsewhere, record the end there if possible; return what to raise."""
        with contextlib.suppress(Exception):  # what is being written goes first, well or not
            self._saver.wait()
        with set_aside():
            rescued = self._guard.rescue(lost)
        # A full disk is the user's to mend, as it was told when the checkpoint was written.
        cause = lost.__cause__
        error = rescued or (cause if isinstance(cause, CoterieError) else lost)
        self._end("failed", error.message)
        return error

    def _leave(self) -> None:
        """End before the last step, as was asked for, with everything saved."""
        step = self._session.progress.step
        self._save_last()
        raise Interrupted(
            f"Stopped after step {step:,} of {self._settings.steps:,}; everything is saved.",
            hint=f"Go on with: coterie train --resume {self._session.run.name}",
        )

    def _announce(self, preset: str, resumed_from: int | None) -> None:
        session, settings = self._session, self._session.settings
        counts = count(settings.model)
        peak = self._peak_flops
        self._publish(
            RunStarted(
                name=session.run.name,
                preset=preset,
                parameters=counts.parameters,
                active_parameters=counts.active_parameters,
                steps=settings.train.steps,
                epochs=settings.train.epochs,
                epoch_steps=settings.train.epoch_steps,
                tokens_per_step=session.tokens_per_step,
                device=str(session.precision.device),
                precision=session.precision.name,
                machine=describe_machine(session.precision.device),
                peak_flops=peak,
                resumed_from=resumed_from,
                training=session.identity,
                config_sha256=sha256_file(session.run.config),
            )
        )
        if not session.method.holds_out(session.store):
            if judges := settings.train.judges:
                raise RunError(
                    f"No text is held out, and {judges} goes by the validation loss.",
                    hint="Hold some out (data.valid_fraction=0.1), or leave train.patience and "
                    "train.schedule.kind=plateau.",
                )
            self._publish.notice("No text is held out, so nothing is evaluated.", warning=True)
        self._publish.notice(
            f"Computing in {session.precision.name} on {session.precision.device}: "
            f"{session.precision.reason}."
        )
        if len(session.stages.stages) > 1:
            self._publish.notice(f"Tokens of a row: {session.stages.told(settings.train.steps)}.")
        if peak is not None:
            self._publish.notice(
                f"MFU counts active parameters and attention, as a share of the {peak / 1e9:,.0f} "
                f"GFLOP/s that {session.precision.name} matrix products reach on this device."
            )

    def _end(self, status: Status, message: str) -> None:
        self._saver.close()  # a checkpoint that is nearly whole is worth having
        self._publish(
            RunEnded(
                step=self._session.progress.step,
                status=status,
                message=message,
                seconds=time.perf_counter() - self._began,
            )
        )
