"""What the example for PostgreSQL makes of a token. It runs against a real server in `conformance`."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parent.parent / "examples" / "postgres_server.py"
TXN = "AZrVh8vCf1u6oXh0m9YyEr4cQz7J2kq0bW3nT5sLd8E"


@pytest.fixture(scope="module")
def example() -> Any:
    spec = importlib.util.spec_from_file_location("postgres_server", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def claims(user: str, agent: str) -> dict[str, Any]:
    return {"sub": f"user:acme:x:{user}", "act": {"sub": agent}, "txn": TXN, "client_id": "desk"}


def test_the_name_has_transaction_user_and_agent(example: Any) -> None:
    bot = "spiffe://corp.example/agent/support-bot"
    assert example.application_name(claims("alice", bot)) == f"{TXN} alice/support-bot"
    own = {"sub": "user:acme:x:alice", "txn": TXN, "client_id": "desk"}
    assert example.application_name(own) == f"{TXN} alice/desk"


@pytest.mark.parametrize(
    ("user", "agent"),
    [
        ("a" * 100, "b" * 100),
        ("a" * 100, "b"),
        ("a", "b" * 100),
        ("alice'; DROP TABLE notes; --", "bot"),
        ("alice' application_name='root", "bot host=evil.example"),
        ("al\nice\r\0", "b\x1b[2Kot"),
        ("ﬁ\u202eß", "Ä\ud800"),
        ("", ""),
    ],
)
def test_whatever_the_names_are_it_is_printable_ascii_of_63_bytes(example: Any, user: str, agent: str) -> None:
    name = example.application_name(claims(user, agent))
    assert name.startswith(f"{TXN} ")
    assert (name.count(" "), name.count("/")) == (1, 1)
    assert len(name.encode("ascii")) <= 63
    assert name.isprintable()
    first, second = name.split(" ")[1].split("/")
    assert len(first) >= min(len(user), 9)
    assert len(second) >= min(len(agent), 9)


def test_an_overlong_transaction_is_cut(example: Any) -> None:
    assert len(example.application_name({**claims("alice", "bot"), "txn": "t" * 100})) == 63
