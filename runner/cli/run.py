"""`alt-runner run`: descriptors run here and now, without a daemon."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from runner.cli import arguments, descriptors, options, output, serve, submission
from runner.cli.exits import Exit, Unusable, worst
from runner.core.errors import InvalidDescriptor

if TYPE_CHECKING:
    import anyio

    from runner.cli.asking import Answers
    from runner.cli.descriptors import Descriptor
    from runner.cli.following import Followed
    from runner.cli.keeping import Kept
    from runner.cli.view import JobView
    from runner.client import Client
    from runner.core.plan import Plan
    from runner.settings import Settings


#: Seconds that a cancellation may take beside the grace of the tasks.
_CANCELLING: Final = 5.0
#: What was asked for, with times from `now` on, as `Client.submit` takes it.
Asked: TypeAlias = Callable[..., dict[str, Any]]


def run(
    files: descriptors.Files,
    *,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Let a simulated orchestrator answer all tasks for an AI.")
    ] = False,
    orchestrator: serve.Orchestrator = None,
    records: serve.Records = None,
    queue: submission.Queue = "",
    priority: submission.Priority = None,
    label: submission.Labels = None,
    value: submission.Inputs = None,
    inputs_file: submission.InputsFile = None,
    deadline: submission.Deadline = "",
    fail_fast: submission.FailFast = None,
    token_budget: submission.TokenBudget = None,
    approve_all: Annotated[bool, typer.Option("--approve-all", help="Approve whatever tasks ask for.")] = False,
    reject_all: Annotated[bool, typer.Option("--reject-all", help="Reject whatever tasks ask for.")] = False,
    settings: serve.SettingsFile = None,
    profile: serve.ProfileName = None,
    set_: serve.Set = None,
    as_json: options.Json = False,
) -> None:
    """Run descriptors here and now, without a daemon.

    Shows what happens as watch does, and writes a record of each job. If a file is wrong, none is run. Ctrl-C cancels
    the jobs, a second one leaves at once. The exit code tells how the jobs ended, the worst of them.

    What tasks ask for is asked on the terminal. In a pipe nobody could answer: a task that would wait for ever ends the
    run with 2, unless --approve-all or --reject-all answers.
    """
    from runner.cli import asking

    if simulate and orchestrator is not None:
        raise Unusable("--simulate answers in the place of any --orchestrator; give one of them")
    answers = asking.answers(approve_all=approve_all, reject_all=reject_all, as_json=as_json)
    asked = partial(
        submission.request,
        queue=queue,
        priority=priority,
        label=label,
        value=value,
        inputs_file=inputs_file,
        deadline=deadline,
        fail_fast=fail_fast,
        token_budget=token_budget,
    )
    asked(now=datetime.now(UTC))
    given = {"records.directory": records, "orchestrator.endpoints.0.url": orchestrator}
    flags = {name: value for name, value in given.items() if value is not None}
    overrides = {"log.level": "warning", **flags, **arguments.pairs(set_ or (), option="--set")}
    held = serve.loaded(settings, profile, overrides)
    found = descriptors.read(files)
    plans = _plans(found, held, as_json=as_json)
    if answers is asking.Answers.NOBODY:
        asking.refuse_unanswerable(plans)
    _make_writable(held.record_directory)
    here = _Run(held, answers, as_json=as_json)
    options.run(here.run(found, asked, simulate=simulate))
    raise typer.Exit(here.tell())


def _plans(found: Sequence[Descriptor], settings: Settings, *, as_json: bool) -> list[tuple[str, Plan]]:
    """The plan of each file; if one has none, tell what is wrong with all that have none, and exit."""
    from runner.core.alt import decode
    from runner.daemon import kinds_known

    kinds = options.run(kinds_known(settings))
    plans: list[tuple[str, Plan]] = []
    codes = []
    for file in found:
        try:
            decoded = decode(file.content, content_type=file.content_type, limits=settings.descriptors, kinds=kinds)
        except InvalidDescriptor as error:
            codes.append(submission.tell_refused(file, error, as_json=as_json))
        else:
            plans.append((file.name, decoded.plan))
    if codes:
        raise typer.Exit(worst(codes))
    return plans


def _make_writable(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise Unusable(
            f"cannot write records under `{directory}`: {error.strerror or error}; choose another --records"
        ) from error


class _Run:
    """Jobs of this process, and what is known of them when it ends, however it does."""

    def __init__(self, settings: Settings, answers: Answers, *, as_json: bool) -> None:
        from runner.cli import following

        self._settings = settings
        self._answers = answers
        self._as_json = as_json
        #: Seconds that jobs have to end once they are cancelled.
        self._patience = settings.engine.cancel_grace_seconds + _CANCELLING
        self._interrupted = False
        #: A question that nobody can answer, as a sentence.
        self._unanswered = ""
        #: The worst of all submissions.
        self._code = Exit.OK
        self._followed: Followed = following.Followed((), following.audience(as_json=as_json))
        self._directory = ""
        self._kept: dict[str, Kept] = {}
        #: What could not be kept, as sentences.
        self._lost: list[str] = []

    async def run(self, found: Sequence[Descriptor], asked: Asked, *, simulate: bool) -> None:
        """Run to the end, or until a signal has cancelled the jobs. Raises what `private_daemon` raises."""
        import anyio

        from runner.cli.private import private_daemon

        stopped = anyio.Event()
        self._obey_signals(stopped)
        with tempfile.TemporaryDirectory(prefix="alt-runner-", ignore_cleanup_errors=True) as directory:
            self._directory = directory
            async with (
                private_daemon(self._settings, Path(directory), simulate=simulate, leave=self._leave) as address,
                options.connected(address, patience=options.WATCH_PATIENCE) as client,
            ):
                if not self._interrupted:
                    async with self._answering(client, stopped):
                        await self._submit(client, found, asked)
                        await self._follow(client, stopped)
                    await self._keep(client)

    @asynccontextmanager
    async def _answering(self, client: Client, stopped: anyio.Event) -> AsyncIterator[None]:
        """Questions of tasks are answered inside the context; one that nobody can answer stops the run."""
        import anyio

        from runner.cli.asking import Answering

        def refuse(sentence: str) -> None:
            self._unanswered = self._unanswered or sentence
            stopped.set()

        answering = Answering(client, self._answers, quiet=self._quiet, refuse=refuse)
        async with anyio.create_task_group() as group:
            await group.start(answering.run)
            yield
            group.cancel_scope.cancel()

    def _quiet(self) -> AbstractContextManager[None]:
        return self._followed.quiet()

    def _obey_signals(self, stopped: anyio.Event) -> None:
        """The first cancels the jobs; a second ends the process, and leaves nothing but records behind either."""
        import asyncio

        def interrupt() -> None:
            if self._interrupted:
                output.console().show_cursor()
                self._end(Exit.INTERRUPTED)
            self._interrupted = True
            stopped.set()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, interrupt)

    async def _submit(self, client: Client, found: Sequence[Descriptor], asked: Asked) -> None:
        from runner.cli import following

        # A deadline counts from here: the second that starting took is none of the job's.
        request = asked(now=datetime.now(UTC))
        jobs, self._code = await submission.submit_all(client, found, request, as_json=self._as_json)
        audience = following.audience(as_json=self._as_json)
        self._followed = following.Followed(jobs, audience, reachable=False)

    async def _follow(self, client: Client, stopped: anyio.Event) -> None:
        import anyio

        async def cancel_when_stopped() -> None:
            await stopped.wait()
            if self._interrupted:
                output.notice("cancelling; once more leaves at once")
            await self._cancel(client)
            await anyio.sleep(self._patience)
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(cancel_when_stopped)
            try:
                await self._followed.follow(client)
            except BrokenPipeError:
                # Nobody reads on; the jobs are ended with a record all the same.
                await self._cancel(client)
                with anyio.move_on_after(self._patience):
                    for view in self._followed.views:
                        await client.result(view.id)
                raise
            group.cancel_scope.cancel()

    async def _cancel(self, client: Client) -> None:
        for view in self._followed.views:
            if not view.state.terminal:
                reason = "nobody can answer" if self._unanswered and not self._interrupted else "interrupted"
                await client.cancel(view.id, reason=reason)

    async def _keep(self, client: Client) -> None:
        from runner.cli.keeping import keep

        root = self._settings.record_directory
        for view in self._followed.views:
            if view.ended_at is None:
                self._lost.append(f"job {view.id} did not end, and has no record")
            else:
                try:
                    self._kept[view.id] = await keep(client, view.id, root, ended_at=view.ended_at)
                except OSError as error:
                    self._lost.append(f"the artifacts of job {view.id} could not be written under `{root}`: {error}")

    def tell(self) -> Exit:
        """How the jobs ended, and where their records are. Answers the exit code."""
        from runner.cli import following

        following.tell_ends(self._followed, self._showing, as_json=self._as_json)
        if not self._as_json and self._nobody_to_ask():
            output.notice("  add --orchestrator URL, or --simulate for simulated answers")
        for job, kept in self._kept.items():
            if not kept.record.exists():
                self._lost.append(f"the record of job {job} could not be written to `{kept.record}`")
            elif self._as_json:
                artifacts = [str(path.absolute()) for path in kept.artifacts]
                output.json_line({"job_id": job, "record": str(kept.record.absolute()), "artifacts": artifacts})
            elif kept.artifacts:
                output.notice(f"  artifacts of {job}: {kept.artifacts[0].parent}")
        for sentence in self._lost:
            output.notice(f"alt-runner: {sentence}")
        code = worst([self._code, self._followed.exit(), Exit.ERROR if self._lost else Exit.OK])
        if self._unanswered and not self._interrupted:
            code = worst([code, self._tell_unanswered()])
        return Exit.INTERRUPTED if self._interrupted else code

    def _nobody_to_ask(self) -> bool:
        """Whether a job failed because it needs an AI orchestrator, and there is none."""
        missing = not self._settings.orchestrator.endpoints
        errors = [view.error for view in self._followed.views]
        return missing and any(error is not None and error.reason == "NO_ORCHESTRATOR" for error in errors)

    def _tell_unanswered(self) -> Exit:
        error = Unusable(self._unanswered)
        if self._as_json:
            output.json_notice(output.error_json(error, Exit.USAGE))
        else:
            output.notice(f"alt-runner: {error}")
        return Exit.USAGE

    def _showing(self, view: JobView) -> str:
        kept = self._kept.get(view.id)
        return f"alt-runner last show {shlex.quote(str(kept.record))}" if kept else "it could not be kept"

    def _leave(self) -> None:
        self._end(self.tell())

    def _end(self, code: Exit) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        os._exit(code)
