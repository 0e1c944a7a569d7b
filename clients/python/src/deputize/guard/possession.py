"""Who sends the request: a token for this server, and the proof that its sender holds the token's key."""

from __future__ import annotations

from deputize.call.access_token import ExpectedToken, verify_token
from deputize.call.claims import ToolCallClaims
from deputize.call.dpop import Expected, parse_proof
from deputize.call.jws import JwsRefused
from deputize.call.keys import KeySet
from deputize.call.once import NonceMaker, OnceSet
from deputize.clock import Clock

from .headers import IncomingCall
from .refusal import Refused
from .settings import GuardSettings


class Possession:
    """Verifies tokens and their binding, with nonces of its own."""

    def __init__(self, settings: GuardSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._nonces = NonceMaker(settings.name, settings.nonce_lifetime_seconds)
        # INVARIANT: proofs are remembered for longer than the nonces in them are good.
        self._seen = OnceSet(settings.nonce_lifetime_seconds + _PROOF_MARGIN_SECONDS, settings.proof_capacity)

    def next_nonce(self) -> str:
        """A nonce for the sender's next proof."""
        return self._nonces.make(self._clock.uptime())

    def verify(self, call: IncomingCall, keys: KeySet) -> tuple[str, ToolCallClaims]:
        """Verify the one token of a request, then its binding.

        Raises:
            Refused: where either does not hold.
        """
        header = call.single("authorization")
        if header is None:
            raise Refused("no_token")
        scheme, space, token = header.partition(" ")
        if not space:
            raise Refused("token", "no scheme")
        settings = self._settings
        try:
            expected = ExpectedToken(
                settings.issuer, settings.resource, self._clock.now_seconds(), settings.leeway_seconds
            )
            claims = verify_token(token, keys, expected)
        except JwsRefused as refused:
            raise Refused("token", str(refused)) from None
        if claims.cnf.method == "jkt":
            # RFC 9449 §7.1: a bound token is never accepted as a bearer token.
            if scheme.lower() != "dpop":
                raise Refused("token", "a bound token needs the scheme DPoP")
            self._verify_proof(call, token, claims)
        elif scheme.lower() != "bearer":
            raise Refused("token", "a certificate-bound token needs the scheme Bearer")
        elif call.client_certificate != claims.cnf.thumbprint:
            # RFC 8705 §3.
            raise Refused("token", "not the certificate that the token is bound to")
        return token, claims

    def _verify_proof(self, call: IncomingCall, token: str, claims: ToolCallClaims) -> None:
        """All checks of RFC 9449 §4.3, the cheapest first; the proof is used up last."""
        # Check 1: not more than one DPoP header.
        header = call.single("dpop")
        if header is None:
            raise Refused("proof", "missing")
        try:
            proof = parse_proof(header)
            # Check 10. A challenge consumes nothing.
            if proof.nonce is None or self._nonces.check(proof.nonce, self._clock.uptime()) != "fresh":
                raise Refused("nonce", "missing, foreign or stale")
            verified = proof.verify(
                Expected(
                    htm=call.method,
                    htu=self._settings.public_url,
                    access_token=token,
                    jkt=claims.cnf.thumbprint,
                    now_seconds=self._clock.now_seconds(),
                    window_seconds=self._settings.proof_window_seconds,
                )
            )
        except JwsRefused as refused:
            raise Refused("proof", str(refused)) from None
        # The room is shared out among the broker's clients: one that sends very many leaves room for the others.
        answer = self._seen.take(claims.client_id, verified.tag, self._clock.uptime())
        if answer == "seen":
            raise Refused("proof_replayed")
        if answer == "full":
            raise Refused("unavailable", "too many proofs")


_PROOF_MARGIN_SECONDS = 10.0
