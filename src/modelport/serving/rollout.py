"""Which models a service serves, and which it is to serve: looked up again, tried in a worker beside the others, and then by all of them.

look --the same--> unchanged          try --a worker is ready--> served by it, and by one worker after the other
     --others----> try                    --it fails-----------> refused, and served as before
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from modelport.errors import ModelportError, Unavailable
from modelport.serving.control import Failed, Model
from modelport.serving.reloading import Asker, Outcome, Served, tell
from modelport.serving.workers import Worker

_CHANGED_S = 0.3
_STOPPING = Failed.of(Unavailable("the service is stopping"))
_OVERTAKEN = Failed.of(ModelportError("there was something else to serve before it was ready"))


class Rollout:
    """What is served, what is tried, and who waits to hear what comes of that. Made and used on the supervisor's loop."""

    def __init__(
        self,
        resolve: Callable[[], Sequence[Model]],
        workers: list[Worker],
        start: Callable[[list[Model]], None],
        say: Callable[..., None],
    ) -> None:
        """`resolve` looks what there is to serve, which may take long; `workers` are all there are, and `start` starts one for models."""
        self._resolve, self._workers, self._start, self._say = resolve, workers, start, say
        self._loop = asyncio.get_running_loop()
        self.models: list[Model] = []
        """What is served, or starts to be."""
        self._tried: list[Model] | None = None
        self._serves = self._stopping = self._looking = self._look_again = False
        self._asking: list[Asker] = []
        """Who has asked for a look that is to come."""
        self._hearing: list[Asker] = []
        """Who is to hear what comes of the models that are tried, or take over from others."""

    def look(self, then: Callable[[list[Model], Exception | None], None]) -> None:
        """Look what there is to serve, on a thread that ends with the process; `then` is called with it, or with why it cannot be had."""

        def look() -> None:
            found: tuple[list[Model], Exception | None]
            try:
                found = list(self._resolve()), None
            except Exception as error:  # noqa: BLE001  it is told, or raised where the service runs
                found = [], error
            with suppress(RuntimeError):  # the loop has ended meanwhile
                self._loop.call_soon_threadsafe(have_found, *found)

        def have_found(models: list[Model], error: Exception | None) -> None:
            self._looking = False
            then(models, error)

        self._looking = True
        threading.Thread(target=look, name="look", daemon=True).start()

    def ask(self, asker: Asker | None = None) -> None:
        """Look again what to serve: at once, or as soon as the start, or the look that is under way, is over."""
        self._asking += [asker] if asker else []
        if self._stopping:
            self._refuse(self._asking, _STOPPING)
        elif self._looking or not self._serves:
            self._look_again = True
        else:
            asking, self._asking, self._look_again = self._asking, [], False
            self.look(lambda models, error: self._on_found(asking, models, error))

    def watch(self, changed: Callable[[], bool]) -> None:
        """Look again whenever something has `changed` since it was last looked, until the service stops."""
        if self._stopping:
            return
        if self._serves and not self._looking and changed():
            self.ask()
        self._loop.call_later(_CHANGED_S, self.watch, changed)

    def _on_found(self, asking: list[Asker], models: list[Model], error: Exception | None) -> None:
        if self._stopping:
            self._refuse(asking, _STOPPING)
        elif error is not None:
            self._refuse(asking, Failed.of(error))
        elif models == self._tried:
            self._hearing += asking
        elif models != self.models:
            self._drop(_OVERTAKEN)
            self._hearing += asking
            self._try(models)
        else:
            self._drop(_OVERTAKEN)
            self._hearing += asking
            if self._is_over():
                self._say("reloaded", f"served as before: {labels(models)}", models=_each(models), changed=False)
                self._tell(self._hearing, Served(models, changed=False))
        if self._look_again:
            self.ask()

    # What is tried

    def _try(self, models: list[Model]) -> None:
        self._tried = models
        try:
            self._start(models)
        except OSError as error:
            self.refuse(Failed.of(ModelportError(f"a worker cannot be started: {error.strerror}")))

    def tries(self, worker: Worker) -> bool:
        """Whether the worker is to show if what it loads can be served."""
        return worker.models is self._tried

    def refuse(self, why: Failed) -> None:
        """What is tried cannot be served."""
        self._tried = None
        self._refuse(self._hearing, why)

    def _refuse(self, askers: list[Asker], why: Failed) -> None:
        self._say("reload-failed", f"not reloaded, and served as before: {why.message}")
        self._tell(askers, why)

    def _drop(self, why: Failed) -> None:
        """What is tried is not wanted any more."""
        if self._tried is not None:
            for worker in self._workers:
                if self.tries(worker):
                    worker.killed_for = "stop"
                    worker.process.kill()
            self._tried = None
            self._tell(self._hearing, why)

    # What is served

    def ready(self, worker: Worker, engines: list[str]) -> None:
        """A worker serves its models: if they were tried, they are what is to be served from now on."""
        self._serves = True
        if self.tries(worker):
            self.models, self._tried = worker.models, None
            self._say("reloaded", f"served now: {labels(self.models)}", models=_each(self.models), engines=engines)
        if self._look_again:
            self.ask()

    def gone(self, worker: Worker, why: str) -> None:
        """A worker is lost; `why` is '' where it was told to end."""
        if self.tries(worker):
            self.refuse(Failed.of(ModelportError(f"the worker that loaded it is gone: {why}")))
        elif why and self._hearing and not self._tried:
            text = f"{labels(self.models)} is served, but not by all workers yet: a worker is gone: {why}"
            self._tell(self._hearing, Failed.of(ModelportError(text)))

    def _is_over(self) -> bool:
        """Whether no worker has other models than those that are to be served."""
        return self._tried is None and all(worker.models is self.models for worker in self._workers if worker.killed_for != "stop")

    def tell_if_over(self) -> None:
        """Tell who waits for it that from now on every answer is of the new models."""
        if self._hearing and self._is_over():
            self._tell(self._hearing, Served(self.models, changed=True))

    def stop(self) -> None:
        """The service stops, and serves nothing new."""
        self._stopping = True
        self._drop(_STOPPING)
        self._tell(self._hearing, _STOPPING)
        self._tell(self._asking, _STOPPING)

    def _tell(self, askers: list[Asker], outcome: Outcome) -> None:
        while askers:
            tell(askers.pop(), outcome)


def labels(models: Sequence[Model]) -> str:
    return ", ".join(_each(models))


def _each(models: Sequence[Model]) -> list[str]:
    """As the X-Model header gives them."""
    return [f"{model.label} {model.digest}" for model in models]
