"""Tries whether network policies hold, and takes everything away again. Layer: CLI, I/O over `probe_objects`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from moorage.cli.doctor import probe_objects as objects
from moorage.cli.doctor.asked import Answer, Ask, part
from moorage.cli.doctor.findings import Finding, unseen
from moorage.cli.doctor.network import CHECK

RIGHT = "create, list and delete jobs, pods and networkpolicies in namespace {}"
START_SECONDS = 60.0  # until the listener runs; an image may have to be pulled
END_SECONDS = 90.0  # until the caller ended
REMOVE_SECONDS = 30.0
STEP = 0.5
T = TypeVar("T")


class _Stopped(Exception):
    """The probe ends with this finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


class Probe:
    """One try. `token`: a name of its own, letters and digits. `pause` waits some seconds, `monotonic` is a clock."""

    def __init__(
        self, ask: Ask, namespace: str, *, token: str, monotonic: Callable[[], float], pause: Callable[[float], object]
    ) -> None:
        self._ask = ask
        self._namespace = namespace
        self._in = f"--namespace={namespace}"
        self._token = token
        self._monotonic = monotonic
        self._pause = pause
        self._made = False

    def run(self, image: str) -> list[Finding]:
        """What was found; one more finding when something could not be taken away."""
        try:
            found = self._try(image)
        except _Stopped as stop:
            found = stop.finding
        finally:
            left = self._removed()  # also when a person ends it meanwhile
        return [found, *left]

    def _try(self, image: str) -> Finding:
        token, namespace = self._token, self._namespace
        made = self._create(objects.listener(token, namespace, image))
        job = str(part(made, "metadata", "uid"))
        for policy in objects.policies(token, namespace, job):
            self._create(policy)
        address = self._until("listener", objects.address, START_SECONDS)
        self._create(objects.caller(token, namespace, image, job, address))
        return objects.verdict(self._until("caller", objects.end, END_SECONDS), namespace)

    def _create(self, wanted: objects.Object) -> Mapping[str, Any]:
        before, self._made = self._made, True  # also when no answer comes back
        answer = self._ask("create", self._in, "-f", "-", "-o", "json", given=objects.text(wanted))
        if answer.outcome == "forbidden":
            self._made = before
        made = answer.object()
        if made is None:
            raise _Stopped(self._unseen(answer))
        return made

    def _until(self, role: str, look: Callable[[Mapping[str, Any]], T | None], seconds: float) -> T:
        """What `look` finds of the pod of that role, once it finds something."""
        selector = f"{objects.LABEL}={self._token},{objects.ROLE}={role}"
        deadline = self._monotonic() + seconds
        why = "it was never made"
        while True:
            answer = self._ask("get", "pods", self._in, "-l", selector, "-o", "json")
            pods = answer.items()
            if pods is None:
                raise _Stopped(self._unseen(answer))
            for pod in pods:
                if (found := look(pod)) is not None:
                    return found
                why = objects.stuck(pod) or f"it is {part(pod, 'status', 'phase')}"
            if self._monotonic() > deadline:
                raise _Stopped(
                    objects.unproved(f"The pod of the {role} did not get there within {seconds:g} s: {why}.")
                )
            self._pause(STEP)

    def _unseen(self, answer: Answer) -> Finding:
        return unseen(CHECK, RIGHT.format(self._namespace), answer)

    def _removed(self) -> list[Finding]:
        if not self._made:
            return []
        what = ("jobs,pods,networkpolicies", self._in, "-l", f"{objects.LABEL}={self._token}")
        answer = self._ask("delete", *what, f"--timeout={REMOVE_SECONDS:g}s", within=REMOVE_SECONDS + 10)
        if answer.outcome == "answered":
            return []
        says = f"What it made could not be taken away ({answer.why}); the cluster does it within {objects.LIFE} s."
        return [Finding("probe", "wrong", says, (f"kubectl delete {' '.join(what)}",))]
