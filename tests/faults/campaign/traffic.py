"""Holds what the workers are asked for meanwhile, and what has come back."""

import random
import uuid
from threading import Event, Thread

from sandbox.openstack import SimulatedOpenStack
from sandbox.requester import Requester, Source
from tests.support.kinds import KINDS, Asked
from tests.support.lasting import LastingRequester
from tests.support.tenant import Tenant

#: Requests that are not answered yet, at most: two cores have other things to do.
OPEN = 40
#: Parts of the requests that are sent more than once, and that are rubbish.
COPIES, RUBBISH = 0.3, 0.15
PARAMETER = "101.001002"
_RUBBISH = (b"{", b"[1]", b'{"operation": NaN}', b'{"operation": "server.action", "server_id": 1}')


class Traffic(Thread):
    """A console and a billing system that do not care what happens: every kind of request, copies,
    rubbish.
    """

    def __init__(
        self, requester: LastingRequester, cloud: SimulatedOpenStack, chance: random.Random
    ) -> None:
        super().__init__(daemon=True)
        self.requester = requester
        self.tenant = Tenant(cloud.clouds_yaml, "tenant-a")
        self.asked: list[Asked] = []
        #: Ids of what nobody waits for an answer to: it must be parked.
        self.unheard: set[str] = set()
        self.copies = 0
        self._cloud = cloud
        self._chance = chance
        self._ending = Event()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                self._send_one()
                self.requester.listen(0.05)
                while len(self.open()) >= OPEN and not self._ending.is_set():
                    self.requester.listen(0.2)
        except BaseException as error:
            self.error = error

    def __enter__(self) -> "Traffic":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self.join()
        self.requester.close()
        self.tenant.close()

    def end(self) -> None:
        """Send no more."""
        self._ending.set()
        self.join()
        if self.error is not None:
            raise self.error

    def open(self) -> list[Asked]:
        """Return what has no answer yet."""
        answered = {
            one.correlation_id for one in self.requester.heard if one.source is not Source.STATUS
        }
        return [one for one in self.asked if one.message_id not in answered]

    def unended(self) -> list[Asked]:
        """Return what has no answer, or fewer final updates than there must be."""
        finals: dict[str, set[tuple[str, str]]] = {}
        for one in self.requester.heard:
            if one.is_final:
                finals.setdefault(one.body["message_id"], set()).add(
                    (one.body["resource"], one.body["id"])
                )
        replies = [one for one in self.requester.heard if one.source is Source.REPLY]
        refused = {one.correlation_id for one in replies if one.body["code"] not in (200, 201)}
        waiting = {one.message_id for one in self.open()}
        return [
            one
            for one in self.asked
            if one.message_id in waiting
            or (
                one.message_id not in refused
                and len(finals.get(one.message_id, ())) < len(one.finals)
            )
        ]

    def _send_one(self) -> None:
        if self._chance.random() < RUBBISH:
            self._send_rubbish()
            return
        asked = self._chance.choice(KINDS).ask(self.tenant, self._cloud)
        self.asked.append(asked)
        asked.publish(self.requester)
        if self._chance.random() < COPIES:
            for _ in range(self._chance.randint(1, 3)):
                asked.publish(self.requester)
                self.copies += 1

    def _send_rubbish(self) -> None:
        body = self._chance.choice(_RUBBISH)
        if self._chance.random() < 0.5:
            self.unheard.add(self.requester.publish("ecs.commands", "server.action", body))
            return
        message_id = uuid.uuid4().hex

        def publish(requester: Requester) -> None:
            requester.publish(
                "ecs.commands",
                "server.action",
                body,
                message_id=message_id,
                reply_to=requester.reply_to,
            )

        self.asked.append(Asked("rubbish", message_id, publish, "", PARAMETER, {}, ()))
        publish(self.requester)
