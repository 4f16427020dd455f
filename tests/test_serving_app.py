"""How requests share one model: health answers while it is busy, what is under way is finished, and one thread calls it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import perf_counter

import httpx
import pytest

from modelport.errors import UsageError
from modelport.serving.app import create_app
from modelport.serving.settings import Settings
from modelport.signature import Columns
from serving_world import FLOWER, Live, by_petal, live, make_service


class Gate:
    """A model that takes a millisecond, which is long, and waits to be let go when it is asked about a long petal."""

    def __init__(self) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.threads: set[int] = set()

    def __call__(self, columns: Columns) -> Columns:
        self.threads.add(threading.current_thread().ident or 0)
        start = perf_counter()
        while perf_counter() - start < 0.001:
            pass
        if columns["petal_length"].max() > 5:
            self.entered.set()
            assert self.let_go.wait(30)
        return by_petal(columns)


LONG = FLOWER | {"petal_length": 6.0}


@contextmanager
def busy(**settings: object) -> Iterator[tuple[Live, Gate, httpx.Client, ThreadPoolExecutor]]:
    gate = Gate()
    with live(make_service(gate), **settings) as running, running.client() as client, ThreadPoolExecutor(4) as callers:
        try:
            yield running, gate, client, callers
        finally:
            gate.let_go.set()


def test_health_answers_while_the_model_is_busy() -> None:
    with busy() as (_, gate, client, callers):
        slow = callers.submit(client.post, "/predict", json=LONG)
        assert gate.entered.wait(30)
        assert client.get("/livez").status_code == 200
        assert client.get("/readyz").status_code == 200
        assert not slow.done()
        gate.let_go.set()
        assert slow.result().json()["prediction"] == "virginica"


def test_a_model_that_is_not_quick_is_called_on_one_thread_of_its_own() -> None:
    with busy() as (_, gate, client, callers):
        gate.let_go.set()
        answers = list(callers.map(lambda _: client.post("/predict", json=FLOWER).status_code, range(20)))
        assert set(answers) == {200}
        gate.threads.discard(threading.get_ident())  # where it was warmed up
        assert len(gate.threads) <= 2, "the loop, where a call is tried at times, and the model's own"


def test_what_is_under_way_is_finished_when_the_service_is_told_to_stop() -> None:
    gate = Gate()
    service = make_service(gate)
    with ThreadPoolExecutor(1) as caller, httpx.Client(trust_env=False, timeout=30) as client:
        with live(service) as running:
            slow = caller.submit(client.post, f"{running.url}/predict", json=LONG)
            assert gate.entered.wait(30)
            threading.Timer(0, gate.let_go.set).start()
        assert slow.result().status_code == 200


def test_two_models_of_one_name_are_refused() -> None:
    with pytest.raises(UsageError, match="one name"):
        create_app([make_service(), make_service()], Settings())
