"""A token for this server from the holder of its key, and each neighbour that is not."""

from __future__ import annotations

from typing import Any

from deputize.call.keys import SigningKey
from deputize.guard import Refusal
from guard_fixture import NOW, Fixture, Request, call, l1, refusal_of

BODY = call("lookup", {})


async def with_claims(f: Fixture, **changes: Any) -> Any:
    return await f.with_grant(l1("lookup"), BODY, **changes)


async def invalid_token(verification: Any) -> None:
    refusal = await refusal_of(verification)
    assert (refusal.status, refusal.error) == (401, "invalid_token"), refusal
    assert refusal.challenges[0].startswith("DPoP ")
    assert (
        'resource_metadata="https://pay.example.com/.well-known/oauth-protected-resource/mcp"' in refusal.challenges[0]
    )


async def invalid_proof(verification: Any) -> None:
    refusal = await refusal_of(verification)
    assert (refusal.status, refusal.error) == (401, "invalid_dpop_proof"), refusal


async def test_a_token_of_this_broker_for_this_server_within_its_time() -> None:
    f = Fixture()
    await with_claims(f)
    await invalid_token(with_claims(f, iss="https://other.example.com"))
    await invalid_token(with_claims(f, tenant="other"))
    await invalid_token(with_claims(f, exp=NOW - 30))
    await invalid_token(with_claims(f, nbf=NOW + 30, iat=NOW + 30))
    other = "https://crm.example.com/mcp"
    await invalid_token(with_claims(f, aud=other, authorization_details=[l1("lookup", locations=[other])]))
    await with_claims(f, iat=NOW - 60, nbf=NOW - 60, exp=NOW - 3)


async def test_another_signer_or_kind_of_token_is_refused() -> None:
    f = Fixture()
    claims = f.claims(l1("lookup"))
    for token in (
        SigningKey.generate().sign("at+jwt", claims),
        f.sign(claims, "JWT"),
        f.sign(claims, "deputize-snapshot+jwt"),
        f.sign(claims) + "x",
        "x" * 20_000,
        "a.b.c",
        "é.b.c",
    ):
        await invalid_token(f.send(f.request(token, BODY)))


async def test_one_authorization_header_with_the_right_scheme() -> None:
    f = Fixture()
    await f.lookup(lambda token, request: request.replace("Authorization", f"dpop {token}"))
    await invalid_token(f.lookup(lambda token, request: request.replace("Authorization", f"Bearer {token}")))
    await invalid_token(f.lookup(lambda token, request: request.replace("Authorization", token)))
    twice = await refusal_of(f.lookup(lambda token, request: request.header("authorization", f"DPoP {token}")))
    assert twice.status == 400
    none = await f.refused(Request(b'{"jsonrpc":"2.0","id":1,"method":"ping"}'))
    assert (none.status, none.error) == (401, "")
    # RFC 6750 §3.1: no error code where there was no token.
    assert "error=" not in none.challenges[0]


async def test_a_proof_for_this_request_token_and_key() -> None:
    f = Fixture()

    def proving(**changes: Any) -> Any:
        return f.lookup(lambda token, request: request.replace("DPoP", f.proof(changes.pop("token", token), **changes)))

    await proving()
    await invalid_proof(proving(key=SigningKey.generate()))
    await invalid_proof(proving(token=None))
    await invalid_proof(proving(token="another"))
    await invalid_proof(proving(htm="GET"))
    await invalid_proof(proving(htu="https://pay.example.com/other"))
    await invalid_proof(proving(htu="https://evil.example.com/mcp"))
    await invalid_proof(proving(iat=NOW - 61))
    await invalid_proof(proving(iat=NOW + 61))
    await proving(iat=NOW + 60)
    await invalid_proof(f.lookup(lambda _, request: request.replace("DPoP", "rubbish")))
    await invalid_proof(f.lookup(lambda _, request: request.headers.pop()))
    twice = await refusal_of(f.lookup(lambda token, request: request.header("dpop", f.proof(token))))
    assert twice.status == 400


async def test_host_and_forwarding_headers_decide_nothing() -> None:
    f = Fixture()

    def spoof(token: str, request: Request) -> None:
        request.header("Host", "evil.example.com")
        request.header("X-Forwarded-Host", "evil.example.com")
        request.replace("DPoP", f.proof(token, htu="https://evil.example.com/mcp"))

    await invalid_proof(f.lookup(spoof))


async def test_a_proof_serves_once_and_a_challenge_consumes_nothing() -> None:
    f = Fixture()
    token = f.token(l1("lookup"))
    request = f.request(token, BODY)
    request.replace("DPoP", f.proof(token, nonce=None, jti="j1"))
    challenged = await f.refused(request)
    assert (challenged.status, challenged.error) == (401, "use_dpop_nonce")
    request.replace("DPoP", f.proof(token, nonce=challenged.dpop_nonce, jti="j1"))
    verified = await f.send(request)
    await invalid_proof(f.send(request))
    # The answer brings a nonce that is good for the next request.
    request.replace("DPoP", f.proof(token, nonce=verified.next_nonce, jti="j2"))
    await f.send(request)


async def test_nonces_of_others_and_of_long_ago_are_challenged() -> None:
    f = Fixture()
    foreign, stale = Fixture().guard._possession.next_nonce(), f.guard._possession.next_nonce()
    restarted = f.new_guard()._possession.next_nonce()
    f.clock.advance(121)
    f.guard.hear_revocations()
    flipped = ("B" if stale[0] == "A" else "A") + stale[1:]
    for nonce in (foreign, restarted, stale, flipped, "made-up", "é" * 59):
        token = f.token(l1("lookup"))
        request = f.request(token, BODY)
        request.replace("DPoP", f.proof(token, nonce=nonce))
        refusal = await f.refused(request)
        assert (refusal.status, refusal.error) == (401, "use_dpop_nonce"), nonce


async def test_a_full_memory_refuses_and_makes_room_with_time() -> None:
    f = Fixture(proof_capacity=1)
    await f.lookup()
    assert (await refusal_of(f.lookup())).status == 503
    f.clock.advance(260)
    f.guard.hear_revocations()
    await f.lookup()


async def test_a_certificate_bound_token_needs_its_certificate() -> None:
    f = Fixture()
    thumbprint = f.agent.public.thumbprint
    token = f.token(l1("lookup"), cnf={"x5t#S256": thumbprint})
    request = f.request(token, BODY)
    request.replace("Authorization", f"Bearer {token}")
    await invalid_token(f.send(request))
    request.certificate = "another"
    await invalid_token(f.send(request))
    request.certificate = thumbprint
    await f.send(request)
    request.replace("Authorization", f"DPoP {token}")
    await invalid_token(f.send(request))


async def test_a_thousand_racers_have_one_winner() -> None:
    f = Fixture()
    request = f.request(f.token(l1("lookup")), BODY)
    passed = 0
    for _ in range(1000):
        try:
            await f.send(request)
            passed += 1
        except Refusal as refusal:
            assert refusal.error == "invalid_dpop_proof"
    assert passed == 1
