"""Running a list of trainings: what the commands that train have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.cli import options

if TYPE_CHECKING:
    from bench.records.record import Record
    from bench.records.store import Store
    from bench.studies.jobs import Job


class Follower:
    """Tells the tracker of each start and end; does nothing without one."""

    def __init__(self, workspace: Any, given: dict[str, Any], say: Any) -> None:
        self.workspace, self.tracker = workspace, None
        self.under_way: dict[str, Record] = {}
        if not given["no_tracking"]:
            from bench.records.tracking import Tracker

            self.tracker = Tracker(given["tracking_uri"], workspace.results, warn=say)

    def begin(self, job: Job) -> None:
        """A job has started."""
        from bench.studies import jobs as runs

        if self.tracker:
            record = runs.describe(job, self.workspace)
            self.under_way[record.name] = record
            self.tracker.start_seed(record)

    def end(self, record: Record, curve: Any) -> None:
        """A job has given its record."""
        from bench.studies import jobs as runs

        if self.tracker:
            self.under_way.pop(record.name, None)
            self.tracker.log(record, curve, runs.weights(record, self.workspace))

    def break_off(self) -> None:
        """What has started and not ended was killed."""
        if self.tracker:
            for record in self.under_way.values():
                self.tracker.end_seed(record, "KILLED")

    def summarise(self, finished: list[Record]) -> None:
        """Every job is done: the intervals go to the parents."""
        from bench.reporting import formats, run_tables

        if self.tracker:
            table = run_tables.grid(finished)
            files = {"table.tex": formats.latex(table), "table.md": formats.markdown(table)}
            self.tracker.summarise(run_tables.intervals(finished), files)


def train(jobs: list[Job], workspace: Any, store: Store, given: dict[str, Any]) -> list[Record]:
    """Run what is missing, with progress, a tracker that may fail, and a way to stop."""
    from bench.execution import executors, signals
    from bench.execution.progress import open_progress
    from bench.studies import estimates
    from bench.studies import jobs as runs

    progress = open_progress(given["quiet"])
    executor = options.executor(workspace, **given)
    settings(jobs, workspace, progress)
    queue = jobs
    if not isinstance(executor, executors.Local):  # the longest first: no worker idles at the end
        queue = sorted(jobs, key=estimates.operations, reverse=True)
    follower = Follower(workspace, given, progress.say)
    finished: list[Record] = []
    reused = 0
    try:
        with signals.listen(progress.say) as stop:
            for record, before in runs.run(
                queue, workspace, progress, executor=executor, stop=stop, begin=follower.begin
            ):
                finished.append(record)
                reused += before
                follower.end(record, store.curve(record))
                if not before:
                    progress.say(outcome(record))
    finally:
        follower.break_off()
    follower.summarise(finished)
    if reused:
        progress.say(
            f"{reused} of {len(jobs)} runs were done before and are reused (--fresh: anew)"
        )
    asked = [job.name for job in jobs]
    return sorted(finished, key=lambda record: asked.index((record.key, record.seed)))


def settings(jobs: list[Job], workspace: Any, progress: Any) -> None:
    """Say what is compared and how, so that no default is hidden."""
    from bench import registry

    data = workspace.dataset()
    recipe = jobs[0].recipe
    progress.say(
        f"{data.name}: {len(data.train.labels)} training and {len(data.test.labels)} test "
        f"pictures, {len(data.classes)} classes ({data.source})"
    )
    progress.say(
        f"{recipe.epochs} epochs, batch {recipe.batch_size}, learning rate "
        f"{recipe.learning_rate:g} ({recipe.schedule}), weight decay {recipe.weight_decay:g}, "
        f"crop padding {recipe.padding}, flip {'yes' if data.flip else 'no'}, "
        f"validation {recipe.validation:.0%}, {recipe.precision} on {workspace.device}"
    )
    if recipe.policy or recipe.mix:
        progress.say(f"policy {recipe.policy or 'none'}, mix {recipe.mix or 'none'}")
    for text in dict.fromkeys(registry.express(job.recipe.augmentation) for job in jobs):
        progress.say(f"  {text}")


def outcome(record: Record) -> str:
    """One line for a record that has just come in."""
    about = f"{record.labels['augmentation']}, {record.labels['model']}, seed {record.seed}"
    if record.status == "failed":
        return f"{about}: failed, {record.message}"
    return (
        f"{about}: {record.metrics['accuracy']:.2%} after {record.metrics['epochs']:.0f} epochs "
        f"of {record.metrics['seconds_per_epoch']:.2f} s"
    )
