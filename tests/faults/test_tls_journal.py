"""TLS to the journal's PostgreSQL: the advice names the cause and the setting to change."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from sandbox.postgres import PrivatePostgres
from tests.support.certificates import Authority, Pair
from tests.support.waiting import eventually
from tests.support.workshop import Workshop
from workers.journal import JournalError
from workers.journal.database import check_encoding, open_engine

pytestmark = pytest.mark.slow

PASSWORD = "secret-word"
ANYBODY = "host all all all trust"


@dataclass
class Site:
    """A PostgreSQL server, the CA of its certificate, another CA, and clients of both."""

    server: PrivatePostgres
    authority: Authority
    stranger: Authority
    good: Pair
    client: Pair
    foreign: Pair

    def url(self, *options: str, host: str = "localhost") -> str:
        given = f"?{'&'.join(options)}" if options else ""
        return f"postgresql://postgres:{PASSWORD}@{host}:{self.server.port}/postgres{given}"

    def speak_tls(self, pair: Pair | None = None) -> None:
        pair = pair or self.good
        self.server.speak_tls(pair.certificate, pair.key, self.authority.certificate)

    def verified(self, authority: Authority | None = None, how: str = "verify-full") -> list[str]:
        ca = (authority or self.authority).certificate
        return [f"sslmode={how}", f"sslrootcert={ca}"]

    @staticmethod
    def own(pair: Pair) -> list[str]:
        pair.key.chmod(0o600)
        return [f"sslcert={pair.certificate}", f"sslkey={pair.key}"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("certificates")
    authority, stranger = Authority(folder), Authority(folder, "stranger")
    with PrivatePostgres() as server:
        yield Site(
            server,
            authority,
            stranger,
            authority.issue("database", ["localhost"]),
            authority.issue("postgres"),
            stranger.issue("foreign"),
        )


@pytest.fixture
def site(running: Site) -> Site:
    """The server without TLS, which lets anybody in."""
    running.server.configure(ssl="off", ssl_min_protocol_version="TLSv1.2")
    running.server.let_in(ANYBODY)
    eventually(lambda: trouble(running.url("sslmode=disable")) is None)
    return running


def trouble(url: str) -> JournalError | None:
    try:
        check_encoding(open_engine(url))
    except JournalError as error:
        return error
    return None


def told(url: str, advice: str) -> bool:
    """Tell whether the error advises this, and shows no password."""
    found = trouble(url)
    assert PASSWORD not in str(found)
    return found is not None and advice in found.advice


def awaited(url: str, advice: str) -> None:
    """Wait until the server, which has just been told to read its settings again, has done so."""
    try:
        eventually(lambda: told(url, advice))
    except AssertionError:
        raise AssertionError(f"{advice!r} is not in {trouble(url)!s}") from None


CASES: dict[str, tuple[Callable[[Site], str], str]] = {
    "unknown CA": (lambda site: site.url(*site.verified(site.stranger)), "sslrootcert"),
    "unknown CA, verify-ca": (
        lambda site: site.url(*site.verified(site.stranger, "verify-ca")),
        "sslrootcert",
    ),
    "wrong name": (lambda site: site.url(*site.verified(), host="127.0.0.1"), "must name"),
    "no file of the CA": (
        lambda site: site.url("sslmode=verify-full", "sslrootcert=/nowhere.pem"),
        "check sslrootcert",
    ),
    "no key": (
        lambda site: site.url(*site.verified(), f"sslcert={site.client.certificate}"),
        "check sslrootcert, sslcert and sslkey",
    ),
    "foreign client certificate": (
        lambda site: site.url(*site.verified(), *site.own(site.foreign)),
        "does not accept our certificate",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_failed_handshake_names_its_cause(site: Site, case: str) -> None:
    url, advice = CASES[case]
    site.speak_tls()
    eventually(lambda: trouble(site.url(*site.verified())) is None)
    awaited(url(site), advice)


def test_a_certificate_of_another_name_or_time_is_named_as_the_cause(site: Site) -> None:
    site.speak_tls(site.authority.issue("elsewhere", ["database.example"]))
    awaited(site.url(*site.verified()), "must name the database's host")
    site.speak_tls(site.authority.issue("former", ["localhost"], days=(-20, -1)))
    awaited(site.url(*site.verified()), "or that has expired")


def test_a_server_without_tls_is_told_from_one_that_needs_it(site: Site) -> None:
    awaited(site.url("sslmode=require"), "speaks no TLS")
    awaited(site.url(*site.verified()), "speaks no TLS")
    # The first of several hosts tells it as well.
    several = site.url("sslmode=require").replace(
        "@localhost", f"@localhost:{site.server.port},localhost"
    )
    awaited(several, "speaks no TLS")
    site.speak_tls()
    site.server.let_in("hostssl all all all trust")
    awaited(site.url("sslmode=disable"), "no line for connections without TLS")
    eventually(lambda: trouble(site.url(*site.verified())) is None)


def test_a_client_certificate_that_is_needed_or_is_another_users_is_named(site: Site) -> None:
    site.speak_tls()
    site.server.let_in("hostssl all all all cert")
    awaited(site.url(*site.verified()), "set sslcert and sslkey")
    other = site.authority.issue("somebody")
    awaited(site.url(*site.verified(), *site.own(other)), "common name be the user")
    eventually(lambda: trouble(site.url(*site.verified(), *site.own(site.client))) is None)


def test_a_version_of_tls_that_is_too_old_is_named(site: Site) -> None:
    site.speak_tls()
    site.server.configure(ssl_min_protocol_version="TLSv1.3")
    old = site.url(*site.verified(), "ssl_max_protocol_version=TLSv1.2")
    awaited(old, "no version of TLS in common")


def test_another_refusal_gets_no_advice_about_tls(site: Site) -> None:
    site.speak_tls()
    site.server.let_in("host all all all scram-sha-256")
    found: list[JournalError | None] = []

    def is_refused() -> bool:
        found.append(trouble(site.url(*site.verified())))
        return found[-1] is not None

    eventually(is_refused)
    assert found[-1] is not None
    assert (found[-1].advice, "password authentication failed" in str(found[-1])) == ("", True)
    assert PASSWORD not in str(found[-1])


def test_check_the_start_and_commands_say_what_to_change(site: Site, workshop: Workshop) -> None:
    site.speak_tls()
    eventually(lambda: trouble(site.url(*site.verified())) is None)
    settings = {"ECS_JOURNAL_URL": site.url(*site.verified(site.stranger))}
    done = workshop.command("check", "-o", "json", **settings)
    (line,) = (one for one in json.loads(done.stdout) if one["check"] == "journal")
    assert (done.returncode, line["result"]) == (5, "failed")
    assert "certificate verify failed" in line["found"]
    assert line["advice"].startswith("sslrootcert in ECS_JOURNAL_URL")
    for words in (("run",), ("journal", "list")):
        said = workshop.command(*words, **settings)
        assert said.returncode == 4
        last = said.stderr.strip().splitlines()[-1]
        assert "certificate verify failed; sslrootcert in ECS_JOURNAL_URL" in last
        assert PASSWORD not in said.stdout + said.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_running_worker_logs_why_the_database_is_not_reached_any_more(
    site: Site, workshop: Workshop
) -> None:
    site.speak_tls()
    worker = workshop.worker(ECS_JOURNAL_URL=site.url(*site.verified()))
    site.speak_tls(site.authority.issue("of-another", ["database.example"]))
    site.server.stop_immediately()
    site.server.start()
    eventually(lambda: "must name the database's host" in workshop.logs(), 60)
    site.speak_tls()
    eventually(lambda: "journal.recovered" in workshop.logs(), 60)
    assert worker.alive
    assert PASSWORD not in workshop.logs()
