"""Joins the Ray cluster that is there, or starts one on this machine."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sftlab import PLUGIN_PATH
from sftlab.cluster.environment import FORCED, SHORT_SPIN, check_environment
from sftlab.cluster.token import own_token, require_token
from sftlab.errors import UserError
from sftlab.files import home_folder
from sftlab.store.mirror import HASH_LIMIT

# Set for drivers and workers alike, before torch is imported there: one count of threads gives one result.
WORKER_ENVIRONMENT = {
    **FORCED,
    SHORT_SPIN[0]: SHORT_SPIN[1],
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "RAY_DATA_LOG_LEVEL": "WARNING",
    "RAY_AIR_NEW_OUTPUT": "0",  # no table of Ray Tune; sweeps draw theirs
    # Tune's files of every trial, and of its state, are never read: results are in the store.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # Many actors that only wait are how a sweep works, and not an accident.
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}
POLL_SECONDS = 5.0
NODE_IS_LATE = "timed out during startup"

Bundle = dict[str, float]
"""GPUs of one engine or rank, which are on one node."""


@contextmanager
def ray_cluster(
    bundles: Sequence[Bundle],
    minutes: float = 0,
    cpus: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Ray for the time of a run: RAY_ADDRESS or the cluster of a submitted job, else a local one.

    bundles: GPUs that the run needs at once. minutes: how long to wait for those that an autoscaler may still start,
    which is reported to `say`. cpus: CPUs of a local Ray; twice the real ones, at least 4, if None.
    Raises UserError where the cluster does not have these GPUs.
    """
    check_environment()
    os.environ.update({key: os.environ.get(key, value) for key, value in WORKER_ENVIRONMENT.items()} | FORCED)
    import logging

    import ray

    if ray.is_initialized():
        yield
        return
    address = os.environ.get("RAY_ADDRESS")
    cores = os.cpu_count() or 1
    logging.getLogger("ray").setLevel(logging.WARNING)
    # It warns that token authentication is on, which is as it should be.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    if address:
        require_token(address)
        with own_sigterm():
            _join(address)
    else:
        own_token(home_folder())
        # Ray lets everything else on a machine go first; a run that was asked for need not wait for its driver.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Its core prints warnings about its actors, which a reader would take for errors of the study.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")

        def start() -> None:
            ray.init(
                address="local",
                num_cpus=cpus or max(4, 2 * cores),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
                runtime_env={"env_vars": _worker_environment()},
            )

        with own_sigterm():
            start_with_retries(start, ray.shutdown)
    try:
        await_gpus(bundles, minutes, say if address else None)
        yield
    finally:
        ray.shutdown()


def start_with_retries(start: Callable[[], None], stop: Callable[[], None], attempts: int = 3) -> None:
    """Start a local Ray. Ray allows its node 30 seconds to start, which a busy machine may exceed.

    stop: removes what a failed attempt left. Raises UserError where no attempt succeeds.
    """
    for _ in range(attempts):
        try:
            start()
            return
        except Exception as error:
            if NODE_IS_LATE not in str(error):  # Ray raises no type of its own here
                raise
            stop()
    raise UserError(
        f"Ray did not start on this machine: {attempts} attempts exceeded the 30 seconds that Ray allows",
        advice="Stop other programs or wait for them, then run the command again; finished results are kept.",
    )


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Keeps this process's handler of SIGTERM, which `ray job stop` sends: ray.init sets one that exits at once."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        # None is a handler that is not Python's; another thread may set none.
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _worker_environment() -> dict[str, str]:
    """WORKER_ENVIRONMENT, with what the caller's environment says of these and of the modules of custom strategies."""
    given = (PLUGIN_PATH, HASH_LIMIT, SHORT_SPIN[0])
    found = {name: os.environ[name] for name in given if os.environ.get(name)}
    return WORKER_ENVIRONMENT | found


def _join(address: str) -> None:
    """Join the cluster at an address. Raises UserError where none answers, or where it wants another token."""
    import logging

    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": _worker_environment()},
        )
    except ray.exceptions.AuthenticationError as error:
        raise UserError(
            "the cluster refuses this token",
            place=f"RAY_ADDRESS={address}",
            advice=(
                "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or ~/.ray/auth_token to the token that the cluster was "
                "started with."
            ),
        ) from error
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise UserError(
            f"no Ray cluster could be joined there ({error})",
            place=f"RAY_ADDRESS={address}",
            value=address,
            advice="start it, or unset RAY_ADDRESS to run on this machine; what is finished is kept.",
        ) from error


def joins_first(bundles: Sequence[Bundle]) -> bool:
    """Whether Ray is joined before the first stage: on a cluster, and where GPUs (`bundles`) may be missing.

    A Ray of this machine alone is started when it is needed, as it would only slow pre-training down.
    """
    return bool(os.environ.get("RAY_ADDRESS") or bundles)


def bundles_of(processes: int, gpus_each: float) -> list[Bundle]:
    """What engines or training workers take together; empty on CPUs."""
    return [{"GPU": float(gpus_each)}] * processes if gpus_each else []


def gpus_in(bundles: Sequence[Bundle]) -> float:
    return sum(bundle["GPU"] for bundle in bundles)


def await_gpus(bundles: Sequence[Bundle], minutes: float, say: Callable[[str], None] | None) -> None:
    """Wait for GPUs that the cluster lacks now, see `require_gpus`; before every stage that trains.

    Nodes may be lost at any time, and an autoscaler ends those that idle.
    """
    require_gpus(bundles, minutes, live_gpus, say, _ask_autoscaler)


def require_gpus(
    bundles: Sequence[Bundle],
    minutes: float,
    count: Callable[[], float],
    say: Callable[[str], None] | None,
    ask: Callable[[Sequence[Bundle]], None],
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `count()` GPUs are those of the bundles; not at all without `say`.

    An autoscaler is `ask`ed for them meanwhile, again and again, as it keeps one wish for a whole cluster; what was
    asked for is taken back in the end, as it would outlive a driver that is killed, and keep nodes running.

    Raises UserError where they are still missing after so many minutes.
    """
    wanted, found, reported = gpus_in(bundles), count(), -1.0
    left = 60 * minutes if say is not None else 0.0
    if found < wanted and left > 0 and say is not None:
        try:
            while found < wanted and left > 0:
                ask(bundles)
                if found != reported:
                    say(f"waiting for GPUs: {found:g} of {wanted:g} are there")
                    reported = found
                pause(POLL_SECONDS)
                left -= POLL_SECONDS
                found = count()
        finally:
            ask([])
    if wanted > found:
        raise UserError(
            f"the runtime asks for {wanted:g} GPUs, but the cluster has {found:g}",
            value=wanted,
            advice=(
                "choose another runtime file, or set runtime.engine.gpus_per_engine=0 and "
                "runtime.training.gpus_per_worker=0; where an autoscaler still starts nodes, set "
                "runtime.gpu_wait_minutes."
            ),
        )


def live_gpus() -> float:
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _ask_autoscaler(bundles: Sequence[Bundle]) -> None:
    """A hint, which fixed clusters do not take."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=list(bundles))
