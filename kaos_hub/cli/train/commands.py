"""``kaos train …``: everything but ``deploy`` and what fetches files."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kaos_hub.cli.base import Group, Session, pass_session
from kaos_hub.cli.outcome import going_on
from kaos_hub.cli.selection import TRAININGS, select_training, training_selection
from kaos_hub.cli.terminal.output import show_json, show_log_lines, show_table
from kaos_hub.cli.train import deploy as _deploy, get as _get
from kaos_hub.cli.train.show import (
    differences,
    list_row,
    show_training,
    show_trial,
    show_trials,
    with_trials,
)
from kaos_hub.errors import Conflict, NotFound

if TYPE_CHECKING:
    from kaos_hub.schemas import Training

_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_trial = click.option("--trial", type=click.IntRange(1), help="Its trial with this number.")
_follow = click.option("-f", "--follow", is_flag=True, help="Go on as it grows, to its end.")
_STATES = [
    "WAITING", "QUEUED", "INGESTING", "BUILDING", "TRAINING", "SUCCEEDED", "FAILED", "CANCELLED",
]  # fmt: skip
_PAGE = 25
"""Trials that `info` shows at a time: a grid of common size in one piece."""


@click.group(cls=Group)
def train() -> None:
    """Train models and look after trainings.

    A training is named with -j JOB, its id, or with -i INDEX from the list shown last. Where
    nothing can be lost, the newest is meant if none is named.
    """


train.add_command(_deploy.deploy)


@train.command("list")
@click.option("--state", type=click.Choice(_STATES, case_sensitive=False), multiple=True,
              help="Only those in this state; may be repeated.")  # fmt: skip
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True,
              help="At most so many.")  # fmt: skip
@pass_session
def list_trainings(session: Session, state: tuple[str, ...], limit: int) -> None:
    """List trainings, newest first: stage and progress, who, how long, the best score.

    \b
    Example:
        kaos train list
        kaos train list --state FAILED
    """
    query: dict[str, Any] = {"state": ",".join(state) or None, "limit": limit}
    trainings = session.client.trainings.list(**query)
    TRAININGS.remember(session, trainings, query)
    if session.json:
        show_json(trainings)
    elif not trainings:
        session.note("No trainings yet. Start one: kaos train deploy -s DIR -d DIR")
    else:
        show_trainings(trainings)


def show_trainings(found: "Sequence[Training]", err: bool = False) -> None:
    """Print the numbered list; ``err``: as a remark."""
    show_table(
        ("#", "id", "name", "state", "source", "data", "params", "trials", "best", "who",
         "took", "age"),
        [(index, *list_row(each)) for index, each in enumerate(found, 1)], err=err,
    )  # fmt: skip


@train.command()
@training_selection
@_trial
@click.option("-s", "--sort-by", metavar="METRIC",
              help="METRIC, params.NAME, score, state, started, finished, duration.")  # fmt: skip
@click.option(
    "--order",
    type=click.Choice(["min", "max"]),
    help="Smallest or largest first; of the goal, the best.",
)
@click.option("--state", metavar="STATE", help="Only trials in this state.")
@click.option("-p", "--page", type=click.IntRange(1), help="25 trials each.  [default: 1]")
@pass_session
def info(
    session: Session, training: str | None, job: str | None, index: int | None,
    trial: int | None, sort_by: str | None, order: str | None, state: str | None, page: int | None,
) -> None:  # fmt: skip
    """Show a training: stages, inputs, and of each trial parameters, metrics, state and reason.

    \b
    Example:
        kaos train info -i 1 --sort-by loss --order min
        kaos train info -i 1 --trial 3
    """
    chosen, number = select_training(session, training, job, index)
    number = trial or number
    if number is not None:
        one = session.client.trainings.trial(chosen, number)
        show_json(one) if session.json else show_trial(one)
        return
    found = session.client.trainings.look(chosen)
    # For programs all of them, unless they ask for a page.
    limit = None if session.json and page is None else _PAGE
    after = _PAGE * ((page or 1) - 1)
    if order is None and found.goal is not None and sort_by == found.goal.metric:
        order = found.goal.direction
    trials = session.client.trainings.trials(
        chosen, sort_by, order, state.upper() if state else None, limit, after
    )
    if session.json:
        show_json(with_trials(found, trials))
        return
    show_training(found)
    show_trials(found, trials, sort_by)
    _more(session, found, len(trials) + after, state is not None)
    _compared(session, found)


def _more(session: Session, found: "Training", seen: int, filtered: bool) -> None:
    """Say that there are more trials than were shown."""
    pages = -(-found.trials.total // _PAGE)
    page = -(-seen // _PAGE)
    if not filtered and page < pages:
        session.note(f"Page {page} of {pages}; the next one: --page {page + 1}")


def _compared(session: Session, found: "Training") -> None:
    """Of a repetition: what differs from what it repeats."""
    if not (found.reproduces and found.state.ended):
        return
    try:
        compared = session.client.trainings.comparison(found.id)
    except (Conflict, NotFound):
        return  # what it repeats was deleted
    same = sum(each.same_output for each in compared)
    rows = list(differences(compared))
    session.note(
        f"It repeats {found.reproduces}: {same} of {len(compared)} trials left the very same files,"
        f" {'and no metric differs.' if not rows else 'and these metrics differ:'}"
    )
    if rows:
        show_table(("trial", "state", "metric", "before", "after"), rows)


@train.command()
@training_selection
@_trial
@_follow
@pass_session
def logs(
    session: Session, training: str | None, job: str | None, index: int | None,
    trial: int | None, follow: bool,
) -> None:  # fmt: skip
    """Print what a trial said: the first one, unless another is named. Also while it runs.

    \b
    Example:
        kaos train logs -i 1 --trial 3 --follow
    """
    chosen, number = select_training(session, training, job, index)
    one = trial or number or 1
    with going_on(f"Training {chosen}", f"kaos train logs -j {chosen}.{one} -f", follow):
        show_log_lines(session.client.trainings.logs(chosen, one, follow), session.json)


@train.command("build-logs")
@training_selection
@_follow
@pass_session
def build_logs(
    session: Session, training: str | None, job: str | None, index: int | None, follow: bool
) -> None:
    """Print the log of the Build stage. It is kept, whatever became of the build.

    \b
    Example:
        kaos train build-logs -i 1
    """
    chosen, _ = select_training(session, training, job, index)
    with going_on("The build", f"kaos train build-logs -j {chosen} -f", follow):
        show_log_lines(session.client.trainings.build_logs(chosen, follow), session.json)


@train.command("ingest-logs")
@training_selection
@_follow
@pass_session
def ingest_logs(
    session: Session, training: str | None, job: str | None, index: int | None, follow: bool
) -> None:
    """Print what was said while the files of a manifest were fetched.

    \b
    Example:
        kaos train ingest-logs -i 1
    """
    chosen, _ = select_training(session, training, job, index)
    with going_on("The ingest", f"kaos train ingest-logs -j {chosen} -f", follow):
        show_log_lines(session.client.trainings.ingest_logs(chosen, follow), session.json)


train.add_command(_get.metrics)
train.add_command(_get.get)
train.add_command(_get.provenance)


@train.command()
@training_selection
@_trial
@_yes
@pass_session
def kill(
    session: Session, training: str | None, job: str | None, index: int | None,
    trial: int | None, yes: bool,
) -> None:  # fmt: skip
    """End a training in whatever stage it is, or one of its trials. Its history is kept.

    \b
    Example:
        kaos train kill -i 1
        kaos train kill -i 1 --trial 3 -y
    """
    chosen, number = select_training(session, training, job, index, sure=True)
    number = trial or number
    what = f"trial {number} of training {chosen}" if number else f"training {chosen}"
    which = f" --trial {number}" if number else ""
    session.confirm(
        f"End {what}? What it has computed and not written yet is lost; logs, metrics and what has"
        " ended are kept.",
        yes,
        f"kaos train kill -j {chosen}{which} -y",
    )
    found = session.client.trainings.kill(chosen, number)
    ended = found.state.ended and f"Training {chosen} has ended already: {found.state.value}."
    _done(session, found, ended or f"End of {what} asked for.")


@train.command()
@training_selection
@_yes
@pass_session
def delete(
    session: Session, training: str | None, job: str | None, index: int | None, yes: bool
) -> None:
    """Delete a training that has ended, with its trials, logs and metrics.

    \b
    Example:
        kaos train delete -i 1
    """
    chosen, number = select_training(session, training, job, index, sure=True)
    if number is not None:
        raise click.UsageError(f"A trial cannot be deleted alone; -j {chosen} is all of it.")
    found = session.client.trainings.look(chosen)
    trials = f"its {found.trials.total:,} trials" if found.trials.total > 1 else "its trial"
    session.confirm(
        f"Delete training {chosen} ({found.name}) with {trials}, logs and metrics? Bundles and"
        " models that have a name are kept.",
        yes,
        f"kaos train delete -j {chosen} -y",
    )
    session.client.trainings.delete(chosen)
    _done(session, found, f"Training {chosen} was deleted.")


@train.command()
@training_selection
@click.option("--detach", is_flag=True, help="Do not wait for it.")
@pass_session
def reproduce(
    session: Session, training: str | None, job: str | None, index: int | None, detach: bool
) -> None:
    """Run a training again on the very same bundles, and compare the metrics.

    \b
    Example:
        kaos train reproduce -i 1
    """
    from kaos_hub.cli.train.follow import follow_training

    chosen, _ = select_training(session, training, job, index)
    again = session.client.trainings.reproduce(chosen)
    found = follow_training(session, again.model, detach, again.actions)
    if found.state.ended and not session.json:
        _compared(session, found)


def _done(session: Session, found: "Training", what: str) -> None:
    if session.json:
        show_json(found)
    else:
        session.note(what)
