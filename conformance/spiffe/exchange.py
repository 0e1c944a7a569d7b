"""An agent in Python, on gRPC's C core and PyJWT, knowing nothing of Deputize but the description of its messages.

`exchange.py DESCRIPTOR ISSUER [USER]`, as that user if one is given, the socket in SPIFFE_ENDPOINT_SOCKET, its key (a private JWK) in the first line of stdin.
Each further line is one request (JSON): its fields, and `with`, which says what is wrong with it on purpose. Prints for
each what came of it, as one JSON object.
"""

import json
import os
import sys
import time
import uuid

import grpc
import jwt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

METHOD = "/deputize.exchange.v1.DelegatedExchange/Exchange"
SECURED = (("workload.spiffe.io", "true"),)
PATIENCE_SECONDS = 20


def messages(path):
    with open(path, "rb") as file:
        described = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for one in described.file:
        pool.AddSerializedFile(one.SerializeToString())
    names = ("ExchangeRequest", "ExchangeResponse")
    found = (pool.FindMessageTypeByName(f"deputize.exchange.v1.{name}") for name in names)
    return [message_factory.GetMessageClass(one) for one in found]


class Agent:
    def __init__(self, descriptor, issuer, jwk):
        self.Request, response = messages(descriptor)
        channel = grpc.insecure_channel(os.environ["SPIFFE_ENDPOINT_SOCKET"])
        self.call = channel.unary_unary(
            METHOD, request_serializer=self.Request.SerializeToString, response_deserializer=response.FromString
        )
        self.key = jwt.algorithms.ECAlgorithm.from_jwk(json.dumps(jwk))
        self.public = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
        self.endpoint, self.nonce, self.last = f"{issuer}/spiffe/exchange", None, ""

    def proof(self, htu=None, htm="POST", nonce=None):
        claims = {"htm": htm, "htu": htu or self.endpoint, "iat": int(time.time()), "jti": str(uuid.uuid4())}
        if nonce or self.nonce:
            claims["nonce"] = nonce or self.nonce
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"typ": "dpop+jwt", "jwk": self.public})

    def send(self, fields, twist):
        for _ in range(2):
            if "proof" in twist:
                proof = self.last if twist["proof"] == "again" else twist["proof"]
            else:
                proof = self.proof(**{name: twist[name] for name in ("htu", "htm", "nonce") if name in twist})
            metadata = () if twist.get("header") is False else SECURED
            try:
                answer = self.call(self.Request(dpop=proof, **fields), metadata=metadata, timeout=PATIENCE_SECONDS)
            except grpc.RpcError as error:
                said = {name: value for name, value in error.trailing_metadata() or ()}
                if said.get("error") == "use_dpop_nonce" and "nonce" not in twist and not self.nonce:
                    self.nonce = said["dpop-nonce"]
                    continue
                names = ("error", "decision_id", "dpop-nonce", "reason")
                return {"code": error.code().name, **{name: said[name] for name in names if name in said}}
            self.nonce, self.last = answer.dpop_nonce, proof
            names = ("access_token", "token_type", "expires_in", "scope", "transaction_id", "decision_id")
            told = {name: getattr(answer, name) for name in names}
            return {"code": "OK", **told, "authorization_details": json.loads(answer.authorization_details)}
        return {"code": "CHALLENGED_TWICE"}


def main(descriptor, issuer, user=None):
    if user is not None:
        os.setuid(int(user))
    agent = Agent(descriptor, issuer, json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        fields = json.loads(line)
        twist = fields.pop("with", {})
        print(json.dumps(agent.send(fields, twist)), flush=True)


main(*sys.argv[1:])
