// A SPIFFE Workload API by gRPC for JavaScript: an honest one, or one with a fault on purpose. It shows that what
// examines such servers finds faults. Reads one line of JSON with `socket`, `fault`, and what it serves:
// `x509` (svids, federated_bundles, bundles; bytes in base64), `jwt` (ids with hints, private_jwk, jwks by trust
// domain). Prints `{"ready":true}` and serves until it is killed.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { createInterface } from "node:readline";
import { importJWK, jwtVerify, SignJWT } from "jose";

const line = await new Promise((resolve) => createInterface({ input: process.stdin }).once("line", resolve));
const { socket, fault, x509, jwt } = JSON.parse(line);
const definition = loadSync(new URL("workload.proto", import.meta.url).pathname, { keepCase: true, defaults: true });
const { SpiffeWorkloadAPI } = grpc.loadPackageDefinition(definition);
const bytes = (text) => Buffer.from(text, "base64");
const each = (object, change) => Object.fromEntries(Object.entries(object).map(([name, value]) => [name, change(value)]));
const refusal = (code, details) => ({ code: grpc.status[code], details });

const svids = {
    svids: x509.svids.map((svid) => ({
        ...svid, x509_svid: bytes(svid.x509_svid), x509_svid_key: bytes(svid.x509_svid_key), bundle: bytes(svid.bundle),
    })),
    crl: (x509.crl ?? []).map(bytes),
    federated_bundles: each(x509.federated_bundles, bytes),
};
const bundles = { bundles: each(x509.bundles, bytes) };
const jwks = { bundles: each(jwt.jwks, (set) => Buffer.from(JSON.stringify(set))) };
const key = await importJWK(jwt.private_jwk, "ES256");
const { d: _, ...publicJwk } = jwt.private_jwk;
const publicKey = await importJWK(publicJwk, "ES256");

// SPIFFE Workload Endpoint §3: the value is `true`, to the letter.
function admits(call) {
    const value = call.metadata.get("workload.spiffe.io");
    if (fault === "no-header-check") return true;
    if (fault === "header-in-any-case") return value.length === 1 && String(value[0]).toLowerCase() === "true";
    return value.length === 1 && value[0] === "true";
}

function stream(message) {
    return (call) => {
        if (!admits(call)) {
            const code = fault === "header-refused-otherwise" ? "UNAUTHENTICATED" : "INVALID_ARGUMENT";
            return call.emit("error", refusal(code, "the security header is missing"));
        }
        if (fault === "nobody-is-entitled") return call.emit("error", refusal("PERMISSION_DENIED", "no identity"));
        if (fault === "silent") return undefined;
        call.write(message);
        if (fault === "pushed-twice") setTimeout(() => call.write(message), 50);
        if (fault === "stream-ends") call.end();
        return undefined;
    };
}

function unary(answer) {
    return (call, done) => {
        if (!admits(call)) {
            const code = fault === "header-refused-otherwise" ? "UNAUTHENTICATED" : "INVALID_ARGUMENT";
            return done(refusal(code, "the security header is missing"));
        }
        if (fault === "nobody-is-entitled") return done(refusal("PERMISSION_DENIED", "no identity"));
        return answer(call.request).then((message) => done(null, message), (error) => done(error.details ? error : refusal("INTERNAL", String(error))));
    };
}

async function mint(subject, audience) {
    const header = { alg: "ES256", kid: jwt.private_jwk.kid, typ: "JWT" };
    if (fault === "jwt-extra-header") header.jku = "https://example.org/keys";
    if (fault === "jwt-other-typ") header.typ = "at+jwt";
    const claims = { sub: fault === "jwt-other-subject" ? `${subject}x` : subject, jti: String(Math.random()) };
    if (fault !== "jwt-without-audience") claims.aud = fault === "jwt-other-audience" ? ["everyone"] : audience;
    const now = Math.floor(Date.now() / 1000);
    claims.iat = now;
    if (fault === "jwt-expired") claims.exp = now - 600;
    else if (fault !== "jwt-without-expiry") claims.exp = now + 300;
    return new SignJWT(claims).setProtectedHeader(header).sign(key);
}

async function jwtSvids({ audience, spiffe_id }) {
    if (audience.length === 0 && fault !== "empty-audience-taken") throw refusal("INVALID_ARGUMENT", "an audience is needed");
    let ids = jwt.ids.filter((id) => spiffe_id === "" || fault === "requested-id-ignored" || id.spiffe_id === spiffe_id);
    if (ids.length === 0 && fault === "foreign-id-given") ids = [{ spiffe_id, hint: "" }];
    if (ids.length === 0) throw refusal("PERMISSION_DENIED", "not entitled");
    if (fault === "jwt-for-one-only") ids = ids.slice(0, 1);
    return { svids: await Promise.all(ids.map(async (id) => ({ ...id, svid: await mint(id.spiffe_id, audience) }))) };
}

async function validate({ audience, svid }) {
    if (audience === "" || svid === "") throw refusal("INVALID_ARGUMENT", "the audience and the SVID are needed");
    let payload;
    if (fault === "validates-anything") {
        payload = JSON.parse(Buffer.from(svid.split(".")[1] ?? "", "base64url").toString() || "{}");
    } else {
        try {
            const options = fault === "validates-any-audience" ? {} : { audience };
            ({ payload } = await jwtVerify(svid, publicKey, { ...options, algorithms: ["ES256"], requiredClaims: ["exp", "sub"] }));
        } catch (error) {
            throw refusal("INVALID_ARGUMENT", String(error));
        }
    }
    const value = (claim) => (Array.isArray(claim) ? { listValue: { values: claim.map(value) } } : typeof claim === "number" ? { numberValue: claim } : { stringValue: String(claim) });
    const claims = fault === "claims-withheld" ? {} : { fields: each(payload, value) };
    return { spiffe_id: payload.sub ?? "", claims };
}

const server = new grpc.Server();
const methods = {
    FetchX509SVID: stream(svids), FetchX509Bundles: stream(bundles), FetchJWTBundles: stream(jwks),
    FetchJWTSVID: unary(jwtSvids), ValidateJWTSVID: unary(validate),
};
if (fault === "profile-missing") delete methods.FetchJWTBundles;
server.addService(SpiffeWorkloadAPI.service, methods);
server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
    console.log(JSON.stringify({ ready: true }));
});
