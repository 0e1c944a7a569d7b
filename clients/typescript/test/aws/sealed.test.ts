/** Sealed answers: opened by whom they are for, and demanded where there is a key for them. */

import assert from "node:assert/strict";
import { inspect } from "node:util";
import { test } from "node:test";
import { exportJWK, generateKeyPair, type JWK } from "jose";
import { DecryptionKey } from "../../src/aws/sealed.js";
import { ConfigurationError, ExchangeError, ProtocolError } from "../../src/client/errors.js";
import { Fixture, l3, type Loose } from "../guard/fixture.js";
import { accessKeyOf, AwsBroker, sealed, ShiftedClock } from "./broker.js";

const EC = await generated("ECDH-ES+A256KW", "ec-1");
const RSA = await generated("RSA-OAEP-256", "rsa-1");
const OTHER = await generated("ECDH-ES+A256KW", "ec-1");

async function generated(alg: string, kid: string): Promise<JWK> {
  const { privateKey } = await generateKeyPair(alg, { extractable: true, crv: "P-256" });
  return { ...(await exportJWK(privateKey)), kid, use: "enc" };
}

async function asked(broker: AwsBroker, key: JWK | undefined): Promise<string> {
  const f = await Fixture.create();
  const token = await f.sign({ ...f.claims(await l3("refund", {})), jti: "jti-1" });
  return (await (await broker.client(key)).awsCredentials({ token, arguments: {} })).accessKeyId;
}

for (const [name, key] of [["ECDH-ES+A256KW", EC], ["RSA-OAEP-256", RSA]] as const) {
  test(`a sealed answer is opened: ${name}`, async () => {
    const broker = await AwsBroker.create(new ShiftedClock());
    broker.sealTo = key;
    assert.equal(await asked(broker, key), accessKeyOf("jti-1"));
  });
}

test("an answer that is not sealed is refused where there is a key, and the other way round", async () => {
  const broker = await AwsBroker.create(new ShiftedClock());
  await assert.rejects(asked(broker, EC), (error) => {
    assert.ok(error instanceof ConfigurationError);
    assert.match(error.message, /not sealed, though there is a key/);
    assert.match(error.whatToDo, /who ends TLS/);
    return true;
  });
  broker.sealTo = EC;
  await assert.rejects(asked(broker, undefined), /give encryptionKey/);
  broker.answer = () => Response.json({ error: "invalid_request", error_description: "no" }, { status: 400 });
  await assert.rejects(asked(broker, EC), ExchangeError, "a refusal is never sealed");
});

test("a header that is not ours is refused", async () => {
  const key = await DecryptionKey.fromJwk(EC);
  for (const header of [
    { alg: "ECDH-ES" }, { alg: "ECDH-ES+A128KW" }, { enc: "A128GCM" }, { enc: "A256CBC-HS512" }, { kid: "ec-2" }, { cty: "JWT" },
    { jku: "https://example.com/keys" }, { x5u: "https://example.com/certificate" },
  ] as Loose[]) {
    await refuses(key, await sealed({ Version: 1 }, EC, header));
  }
  const [, ...others] = (await sealed({ Version: 1 }, EC)).split(".");
  const packed = Buffer.from(JSON.stringify({ alg: "ECDH-ES+A256KW", enc: "A256GCM", zip: "DEF" })).toString("base64url");
  await refuses(key, [packed, ...others].join("."));
});

test("a seal for another, or one that was touched, is refused in the same words", async () => {
  const honest = await sealed({ secret: "secret/of" }, EC);
  const key = await DecryptionKey.fromJwk(EC);
  const opened = await key.open(Buffer.from(`${honest}\n`));
  assert.deepEqual(JSON.parse(Buffer.from(opened).toString()), { secret: "secret/of" });
  const parts = honest.split(".");
  const forged = parts.map((part, at) => parts.with(at, (part.startsWith("A") ? "B" : "A") + part.slice(1)).join("."));
  for (const text of [...forged, "", "....", "x", `${honest}.x`, parts.slice(0, 4).join("."), "é".repeat(40)]) await refuses(key, text);
  for (const other of [OTHER, RSA]) await refuses(await DecryptionKey.fromJwk(other), honest);
});

test("keys that cannot be used are said at once", async () => {
  const { d: _, ...publicHalf } = EC;
  const p384 = await exportJWK((await generateKeyPair("ECDH-ES+A256KW", { extractable: true, crv: "P-384" })).privateKey);
  for (const jwk of [publicHalf, { ...EC, use: "sig" }, p384, { ...EC, d: "AAAA" }, { kty: "oct", k: "AAAA", d: "x" }] as JWK[]) {
    await assert.rejects(DecryptionKey.fromJwk(jwk), (error) => {
      assert.ok(error instanceof ConfigurationError);
      assert.match(error.message, /encryption key cannot be used/);
      return true;
    });
  }
  assert.ok(!inspect(await DecryptionKey.fromJwk(EC), { depth: 5, showHidden: true }).includes(EC.d ?? "?"));
});

async function refuses(key: DecryptionKey, text: string): Promise<void> {
  await assert.rejects(key.open(Buffer.from(text)), (error) => {
    assert.ok(error instanceof ProtocolError);
    assert.match(error.message, /cannot be opened with this key/);
    assert.equal(error.cause, undefined);
    return true;
  });
}
