"""Environments: what a source bundle needs to run, and whether that is there already.

The key of an environment says all that its build depends on. A key that was built once is never
built again, and no builder is asked.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub import images
from kaos_hub.database import Database
from kaos_hub.engines.base import Build, Engine, Materialise
from kaos_hub.errors import BuildFailed, KaosError, Unavailable, Unsupported
from kaos_hub.jobs import Jobs
from kaos_hub.models import JobKind, JobState
from kaos_hub.tables import BaseRow, ImageRow, JobRow, NotebookRow, TrainingRow, VersionRow, now
from kaos_hub.versions import Versions

CODE = "/opt/program"
"""Where the code of a bundle is seen on engines without images; the ancestor's place."""


@dataclass(frozen=True)
class Environment:
    """What a notebook or training runs in."""

    key: str
    result: dict[str, Any] | None
    """What its build left, if it is there: an image or an interpreter, and where code goes."""
    job: str | None = None
    """The job that built it."""
    work: Build | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    why: str = "nothing to build"
    advice: tuple[str, ...] = ()


class Environments:
    """Finds environments, has them built, and remembers them.

    Args:
        db, engine, jobs, versions: what it works with.
        default_image: what notebooks without a source run in, on engines with images.
        deadline: seconds that a build may take.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        jobs: Jobs,
        versions: Versions,
        default_image: str,
        deadline: int,
    ) -> None:
        self._db, self._engine, self._jobs, self._versions = db, engine, jobs, versions
        self._default_image, self._deadline = default_image, deadline

    async def find(
        self,
        owner: str,
        source: VersionRow | None,
        pull: bool = False,
        before: str = "",
        ask: bool = True,
        image: str | None = None,
    ) -> Environment:
        """The environment of a source bundle; of none, the default.

        Args:
            owner: whose.
            source: the bundle.
            pull: look up base images again.
            before: key of the environment used so far, to say what is different now.
            ask: ask the engine what base images mean that were never used, which may take as long
                as fetching them. Else an environment on such a base has no key yet.
            image: a ready-made environment to use instead, whatever the source.

        Raises:
            Unsupported: the Dockerfile asks for what this engine cannot do; names the line.
            NotFound: a base image is nowhere to be found.
        """
        if image is not None:
            return await self._ready_made(image, pull, ask)
        if not self._engine.images:
            environment = await self._packages(source)
        elif source is None:
            image = await self._resolve(self._default_image, pull, ask)
            if image is None:
                return _unknown(self._default_image)
            return Environment(key=images.short_key(image), result={"image": image})
        else:
            environment = await self._image(owner, source, pull, ask)
        if not environment.key:
            return environment
        return await self._known(owner, environment, before)

    async def _ready_made(self, image: str, pull: bool, ask: bool) -> Environment:
        """An image as it is."""
        resolved = await self._resolve(image, pull, ask)
        if resolved is not None and not await self._engine.has({"image": resolved}):
            # Somebody has cleared it away; what it means now may be something newer.
            resolved = await self._resolve(image, True, ask) if ask else None
        if resolved is None:
            return replace(_unknown(image), why=f"the image {image} was never used here")
        libc = await self._engine.libc(resolved)
        result = {"image": resolved, "libc": libc}
        return Environment(key=images.short_key(resolved), result=result, why=f"the image {image}")

    async def _packages(self, source: VersionRow | None) -> Environment:
        """Without images: the packages that requirements.txt names, for one Python."""
        dockerfile = requirements = None
        files: dict[str, str] = {}
        if source is not None:
            files = await self._versions.files(source.digest)
            dockerfile = await self._text(files, "Dockerfile")
            requirements = await self._text(files, "model/requirements.txt")
        base = images.final_base(dockerfile) if dockerfile else ""
        python = await self._engine.resolve(base)
        key, inputs = images.local_key(requirements, python, self._engine.platform, files)
        work = Build(source=source.digest if source else "", key=key, image="")
        environment = Environment(key=key, result=None, work=work, inputs=inputs)
        return replace(environment, why="its packages are not installed yet")

    async def _image(self, owner: str, source: VersionRow, pull: bool, ask: bool) -> Environment:
        files = await self._versions.files(source.digest)
        dockerfile = await self._text(files, "Dockerfile") or ""
        problems = images.refusals(dockerfile, classic=self._engine.classic_builder)
        if problems:
            raise Unsupported("; ".join(problems))
        plan = images.analyse(dockerfile, files)
        bases: dict[str, str] = {}
        for base in plan.bases:
            resolved = await self._resolve(base, pull, ask)
            if resolved is None:
                return _unknown(base)
            bases[base] = resolved
        key, inputs = plan.key(bases, self._engine.platform)
        work = Build(
            source=source.digest,
            key=key,
            image=images.image_name(owner, key),
            context=plan.context,
            bases=bases,
        )
        return Environment(
            key=key,
            result=None,
            work=work,
            inputs=inputs | {"code_overlay": plan.code_overlay, "context": plan.context},
            why="its image is not built yet",
            advice=(*plan.advice, *images.warnings(dockerfile, self._engine.classic_builder)),
        )

    async def _known(self, owner: str, environment: Environment, before: str) -> Environment:
        def look(session: Session) -> tuple[ImageRow | None, JobRow | None, ImageRow | None]:
            same = (JobRow.owner == owner, JobRow.key == environment.key)
            built = select(JobRow).where(*same, JobRow.kind == JobKind.BUILD)
            built = built.where(JobRow.state == JobState.SUCCEEDED)
            return (
                session.get(ImageRow, (owner, environment.key)),
                session.scalar(built.order_by(JobRow.finished.desc()).limit(1)),
                session.get(ImageRow, (owner, before)) if before else None,
            )

        row, job, earlier = await self._db.run(look)
        if row is not None and await self._engine.has(row.result):
            return replace(environment, result=row.result, job=row.job, why="nothing to build")
        if job is not None and await self._engine.has(job.result):
            # built, but whoever waited for it died before it was remembered
            return await self.keep(owner, environment, job)
        if row is not None or job is not None:
            return replace(environment, why="what was built before is gone")
        if earlier is not None:
            changed = images.why_rebuilt(earlier.inputs, environment.inputs)
            return replace(environment, why=changed or environment.why)
        return environment

    async def build(self, owner: str, environment: Environment) -> str:
        """The id of the job that builds it; whoever else asks for the same joins it."""
        assert environment.work is not None
        return await self._jobs.ensure(
            JobKind.BUILD, owner, environment.key, environment.work, self._deadline
        )

    async def keep(self, owner: str, environment: Environment, job: JobRow) -> Environment:
        """Remember what a job built."""
        result = dict(job.result)
        if self._engine.images:
            result |= {k: environment.inputs[k] for k in ("code_overlay", "context")}
        else:
            result |= {"code_overlay": CODE, "context": "model"}

        def write(session: Session) -> None:
            session.merge(
                ImageRow(
                    owner=owner, key=environment.key, engine=self._engine.name, result=result,
                    inputs=environment.inputs, job=job.id, created=now(),
                )
            )  # fmt: skip

        await self._db.run(write)
        return replace(environment, result=result, job=job.id, why="nothing to build")

    async def _resolve(self, reference: str, pull: bool, ask: bool) -> str | None:
        """What an image reference means; once known, nobody is asked again."""
        key = (self._engine.name, reference)
        known = await self._db.run(lambda session: session.get(BaseRow, key))
        if known is not None and not (pull and ask):
            return known.resolved
        if not ask:
            return None
        try:
            resolved = await self._engine.resolve(reference, pull)
        except Unavailable:
            raise
        except KaosError:
            if known is None:
                raise
            return known.resolved
        await self._db.run(
            lambda session: session.merge(
                BaseRow(engine=key[0], reference=reference, resolved=resolved, at=now())
            )
        )
        return resolved

    async def _text(self, files: dict[str, str], path: str) -> str | None:
        if path not in files:
            return None
        return (await self._versions.object(files[path])).decode(errors="replace")


def _unknown(base: str) -> Environment:
    return Environment(key="", result=None, why=f"its base image {base} was never used here")


async def lay_out(engine: Engine, jobs: Jobs, store_url: str, owner: str, digest: str) -> None:
    """Have a tree where the engine's workloads can see it; one that is there costs nothing.

    Raises:
        BuildFailed: it could not be laid out.
    """
    if await engine.places.has_tree(digest):
        return
    work = Materialise(digest=digest, store=store_url)
    job = await jobs.wait(await jobs.ensure(JobKind.MATERIALISE, owner, digest, work))
    if job.state != JobState.SUCCEEDED:
        raise BuildFailed(f"The bundle could not be laid out: {job.reason}")


def others_wait(session: Session, job_id: str, besides: str) -> bool:
    """Whether a notebook or training waits for a build, other than the one with the id
    ``besides``."""
    notebook = select(NotebookRow.id).where(
        NotebookRow.build_job == job_id, NotebookRow.id != besides, NotebookRow.wanted == "RUNNING"
    )
    training = select(TrainingRow.id).where(
        TrainingRow.build_job == job_id,
        TrainingRow.id != besides,
        TrainingRow.state.in_(("WAITING", "QUEUED", "INGESTING", "BUILDING")),
        TrainingRow.kill_reason == "",
    )
    return any(session.scalar(query.limit(1)) is not None for query in (notebook, training))


def refuse_musl(environment: Environment) -> None:
    """Refuse what can be no notebook's.

    Raises:
        BuildFailed: says what could be.
    """
    if environment.result is not None and environment.result.get("libc") == "musl":
        raise BuildFailed(
            "The image is built on musl (Alpine), where notebooks cannot run. Use a base with"
            " glibc, e.g. python:3.13-slim or debian:trixie-slim."
        )


def explain(versions: Versions, job: JobRow, lines: list[str]) -> str:
    """What went wrong in a build, in a person's words. Blocks; for a thread."""
    return images.explain_failure(lines, versions.texts(job.work["source"]))
