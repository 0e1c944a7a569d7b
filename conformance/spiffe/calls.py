"""SPIFFE's own Python library, on gRPC's C core, knowing nothing of Deputize: every call that it has.

The endpoint comes from SPIFFE_ENDPOINT_SOCKET, as everywhere. Prints what came of it, as one JSON object.
"""

import json
import threading

from spiffe import JwtSource, SpiffeId, TrustDomain, WorkloadApiClient, X509Source

AUDIENCE = "reports"
PATIENCE_SECONDS = 20


def first(stream):
    """The first message of a stream, which is then left."""
    got, errors, there = [], [], threading.Event()

    def take(into):
        return lambda value: (into.append(value), there.set())

    handle = stream(take(got), take(errors))
    there.wait(PATIENCE_SECONDS)
    handle.cancel()
    if not got:
        raise RuntimeError(f"nothing came: {errors}")
    return got[0]


def refusal(call):
    """What a refused call says."""
    try:
        call()
    except Exception as error:  # whatever the library makes of it
        return str(error)
    return "answered"


def main():
    with WorkloadApiClient(default_timeout=PATIENCE_SECONDS) as client:
        svids = client.fetch_x509_svids()
        context = client.fetch_x509_context()
        bundles = client.fetch_x509_bundles()
        tokens = client.fetch_jwt_svids(audience={AUDIENCE})
        jwt_bundles = client.fetch_jwt_bundles()
        valid = [client.validate_jwt_svid(token.token, AUDIENCE) for token in tokens]
        one = client.fetch_jwt_svid(audience={AUDIENCE}, subject=tokens[0].spiffe_id)
        streamed = first(client.stream_x509_contexts)
        streamed_jwt = first(client.stream_jwt_bundles)
        own = TrustDomain(svids[0].spiffe_id.trust_domain.name)
        stranger = SpiffeId(f"spiffe://{own.name}/not-ours")
        result = {
            "x509": [str(svid.spiffe_id) for svid in svids],
            "context": [str(svid.spiffe_id) for svid in context.x509_svids],
            "default": str(client.fetch_x509_svid().spiffe_id),
            "streamed": [str(svid.spiffe_id) for svid in streamed.x509_svids],
            "x509_bundles": sorted(bundle.trust_domain.name for bundle in bundles.bundles),
            "x509_authorities": len(bundles.get_bundle_for_trust_domain(own).x509_authorities),
            "jwt": [str(token.spiffe_id) for token in tokens],
            "valid": [str(token.spiffe_id) for token in valid],
            "one": str(one.spiffe_id),
            "jwt_bundles": sorted(bundle.trust_domain.name for bundle in jwt_bundles.bundles),
            "jwt_authorities": len(streamed_jwt.get_bundle_for_trust_domain(own).jwt_authorities),
            "other_audience": refusal(lambda: client.validate_jwt_svid(tokens[0].token, "others")),
            "stranger": refusal(lambda: client.fetch_jwt_svid(audience={AUDIENCE}, subject=stranger)),
        }
    with X509Source(timeout_in_seconds=PATIENCE_SECONDS) as source:
        result["x509_source"] = str(source.get_x509_context().default_svid.spiffe_id)
    with JwtSource(timeout_in_seconds=PATIENCE_SECONDS) as source:
        result["jwt_source"] = str(source.fetch_svid(audience={AUDIENCE}).spiffe_id)
    print(json.dumps(result))


main()
