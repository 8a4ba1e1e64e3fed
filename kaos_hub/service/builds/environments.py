"""Environments: what a source bundle needs to run, and whether that is there already.

The key of an environment says all that its build depends on. A key that was built once is never
built again, and no builder is asked.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from kaos_hub.engines.base import Build, Engine, Materialise
from kaos_hub.errors import BuildFailed, Unsupported
from kaos_hub.schemas import JobKind, JobState
from kaos_hub.service.builds import analysis
from kaos_hub.service.builds.bases import Bases
from kaos_hub.service.bundles.versions import Versions
from kaos_hub.service.db.database import Database
from kaos_hub.service.db.tables import ImageRow, JobRow, NotebookRow, TrainingRow, VersionRow, now
from kaos_hub.service.jobs.jobs import Jobs

CODE = "/opt/program"
"""The path of a bundle's code on engines without images; the ancestor's place."""


@dataclass(frozen=True)
class Environment:
    """The environment that a notebook or training runs in."""

    key: str
    result: dict[str, Any] | None
    """The result of its build, if it is there: an image or an interpreter, and where code goes."""
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
        offered: images that the admin offers.
    """

    def __init__(
        self,
        db: Database,
        engine: Engine,
        jobs: Jobs,
        versions: Versions,
        default_image: str,
        deadline: int,
        offered: Collection[str] = (),
    ) -> None:
        self._db, self._engine, self._jobs, self._versions = db, engine, jobs, versions
        self._default_image, self._deadline = default_image, deadline
        self._bases = Bases(db, engine, [default_image, *offered])

    async def find(
        self,
        owner: str,
        source: VersionRow | None,
        pull: bool = False,
        before: str = "",
        ask: bool = True,
        image: str | None = None,
        packages: Sequence[str] = (),
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
            packages: what must be installed, to the version, on engines without images: an
                environment of the same source with anything else is another one.

        Raises:
            Unsupported: the Dockerfile asks for what this engine cannot do; names the line.
            NotFound: a base image is nowhere to be found.
            Forbidden: a base image is what a build left.
        """
        if image is not None:
            return await self._ready_made(owner, image, pull, ask)
        if not self._engine.images:
            environment = await self._packages(source)
        elif source is None:
            image = await self._bases.resolve(owner, self._default_image, pull, ask)
            if image is None:
                return _unknown(self._default_image)
            return Environment(key=analysis.short_key(image), result={"image": image})
        else:
            environment = await self._image(owner, source, pull, ask)
        if not environment.key:
            return environment
        known = await self._known(owner, environment, before)
        if packages and (known.result or {}).get("packages") != [*packages]:
            return await self._known(owner, _locked(environment, packages), before)
        return known

    async def _ready_made(self, owner: str, image: str, pull: bool, ask: bool) -> Environment:
        """An image as it is."""
        resolved = await self._bases.resolve(owner, image, pull, ask)
        if resolved is not None and not await self._engine.has({"image": resolved}):
            # It was removed from the engine; what the reference means now may be newer.
            resolved = await self._bases.resolve(owner, image, True, ask) if ask else None
        if resolved is None:
            return replace(_unknown(image), why=f"the image {image} was never used here")
        libc = await self._engine.libc(resolved)
        result = {"image": resolved, "libc": libc}
        key = analysis.short_key(resolved)
        return Environment(key=key, result=result, why=f"the image {image}")

    async def _packages(self, source: VersionRow | None) -> Environment:
        """Without images: the packages that requirements.txt names, for one Python."""
        dockerfile = requirements = None
        files: dict[str, str] = {}
        if source is not None:
            files = await self._versions.files(source.digest)
            dockerfile = await self._text(files, "Dockerfile")
            requirements = await self._text(files, "model/requirements.txt")
        platform = self._engine.platform
        base = analysis.final_base(dockerfile, platform) if dockerfile else ""
        python = await self._engine.resolve(base)
        key, inputs = analysis.local_key(requirements, python, platform, files)
        work = Build(source=source.digest if source else "", key=key, image="")
        said = (self._engine.lacks, self._engine.substitution(base, python))
        return Environment(
            key=key,
            result=None,
            work=work,
            inputs=inputs,
            why="its packages are not installed yet",
            advice=tuple(filter(None, said)),
        )

    async def _image(self, owner: str, source: VersionRow, pull: bool, ask: bool) -> Environment:
        files = await self._versions.files(source.digest)
        dockerfile = await self._text(files, "Dockerfile") or ""
        classic, platform = self._engine.classic_builder, self._engine.platform
        buildah = self._engine.buildah
        problems = analysis.refusals(dockerfile, classic, platform, buildah)
        if problems:
            raise Unsupported("; ".join(problems))
        plan = analysis.analyse(dockerfile, files, platform=platform, classic=classic)
        bases: dict[str, str] = {}
        for base in plan.bases:
            resolved = await self._bases.resolve(owner, base, pull, ask)
            if resolved is None:
                return _unknown(base)
            if ask:
                await self._bases.refuse_triggers(base, resolved)
            bases[base] = resolved
        key, inputs = plan.key(bases, platform)
        work = Build(
            source=source.digest,
            key=key,
            image=analysis.image_name(owner, key),
            context=plan.context,
            bases=bases,
        )
        return Environment(
            key=key,
            result=None,
            work=work,
            inputs=inputs | {"code_overlay": plan.code_overlay, "context": plan.context},
            why="its image is not built yet",
            advice=(*plan.advice, *analysis.warnings(dockerfile, classic, buildah)),
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
            # built, but what waited for it ended before it was remembered
            return await self.keep(owner, environment, job)
        if row is not None or job is not None:
            return replace(environment, why="what was built before is gone")
        if earlier is not None:
            changed = analysis.why_rebuilt(earlier.inputs, environment.inputs)
            return replace(environment, why=changed or environment.why)
        return environment

    async def build(self, owner: str, environment: Environment, begun: str | None = None) -> str:
        """The id of the job that builds it; all who ask for the same share it.

        Args:
            owner: whose it is.
            environment: what to build.
            begun: the job that was waited for when the service was killed, if one was: its result
                may not have been kept.
        """
        assert environment.work is not None
        return await self._jobs.ensure(
            JobKind.BUILD, owner, environment.key, environment.work, self._deadline, begun=begun
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

    async def _text(self, files: dict[str, str], path: str) -> str | None:
        if path not in files:
            return None
        return (await self._versions.object(files[path])).decode(errors="replace")


def _locked(environment: Environment, packages: Sequence[str]) -> Environment:
    """The same with the very packages; what it would have now may be newer."""
    assert environment.work is not None
    key = analysis.short_key([environment.key, *packages])
    return replace(
        environment,
        key=key,
        work=replace(environment.work, key=key, packages=[*packages]),
        inputs=environment.inputs | {"packages": [*packages]},
        why="what was installed before is gone; the same versions are installed again",
    )


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
    """Return whether a notebook or training other than that of id ``besides`` waits for a build."""
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
    """Explain to people what went wrong in a build. Blocks; for a thread."""
    return analysis.explain_failure(lines, versions.texts(job.work["source"]))
