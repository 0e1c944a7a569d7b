// Uses a SPIFFE Workload API through gRPC for JavaScript, as any program does. Argument: the endpoint, `unix:///…`.
// Prints what each call gave, or the code of its refusal, as one JSON object.

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { createPrivateKey, X509Certificate } from "node:crypto";
import { createLocalJWKSet, jwtVerify } from "jose";

const [endpoint] = process.argv.slice(2);
const definition = loadSync(new URL("workload.proto", import.meta.url).pathname, { keepCase: true, defaults: true });
const { SpiffeWorkloadAPI } = grpc.loadPackageDefinition(definition);
const client = new SpiffeWorkloadAPI(endpoint, grpc.credentials.createInsecure());
const deadline = () => ({ deadline: Date.now() + 20_000 });

function metadata(value = "true") {
    const metadata = new grpc.Metadata();
    if (value !== undefined && value !== null) metadata.set("workload.spiffe.io", value);
    return metadata;
}

// The first message of a stream, which is then left.
function first(method, given = metadata()) {
    return new Promise((resolve, reject) => {
        const stream = client[method]({}, given, deadline());
        stream.on("data", (message) => {
            resolve(message);
            stream.cancel();
        });
        stream.on("error", reject);
        stream.on("end", () => reject(new Error(`${method} ended without a message`)));
    });
}

function answer(method, question, given = metadata()) {
    return new Promise((resolve, reject) => {
        client[method](question, given, deadline(), (error, message) => (error ? reject(error) : resolve(message)));
    });
}

const refusal = (asked) => asked.then(() => "answered", (error) => grpc.status[error.code] ?? error.message);

const { svids, federated_bundles } = await first("FetchX509SVID");
const x509 = svids.map(({ spiffe_id, x509_svid, x509_svid_key, bundle, hint }) => {
    // Node's own parser takes one certificate: the leaf comes first.
    const leaf = new X509Certificate(x509_svid);
    const key = createPrivateKey({ key: x509_svid_key, format: "der", type: "pkcs8" });
    return {
        spiffe_id, hint, san: leaf.subjectAltName, is_ca: leaf.ca, key_fits: leaf.checkPrivateKey(key),
        issued_by_bundle: leaf.checkIssued(new X509Certificate(bundle)) && leaf.verify(new X509Certificate(bundle).publicKey),
    };
});
const bundles = await first("FetchX509Bundles");
const jwt = await answer("FetchJWTSVID", { audience: ["reports"] });
const jwks = await first("FetchJWTBundles");
const verified = [];
for (const { spiffe_id, svid } of jwt.svids) {
    const own = jwks.bundles[new URL(spiffe_id).origin === "null" ? spiffe_id.split("/").slice(0, 3).join("/") : ""];
    const { payload, protectedHeader } = await jwtVerify(svid, createLocalJWKSet(JSON.parse(own.toString())), {
        audience: "reports", subject: spiffe_id,
    });
    const { spiffe_id: validated } = await answer("ValidateJWTSVID", { audience: "reports", svid });
    verified.push({ spiffe_id, validated, header: Object.keys(protectedHeader).sort(), claims: Object.keys(payload).sort() });
}
const one = await answer("FetchJWTSVID", { audience: ["reports"], spiffe_id: jwt.svids[0].spiffe_id });
const result = {
    x509, verified, one: one.svids.map(({ spiffe_id }) => spiffe_id),
    federated: Object.keys(federated_bundles), x509_bundles: Object.keys(bundles.bundles).sort(),
    jwt_bundles: Object.keys(jwks.bundles).sort(),
    refused: {
        no_header: await refusal(first("FetchX509SVID", metadata(null))),
        no_audience: await refusal(answer("FetchJWTSVID", { audience: [] })),
        foreign_id: await refusal(answer("FetchJWTSVID", { audience: ["reports"], spiffe_id: "spiffe://example.org/not-ours" })),
        other_audience: await refusal(answer("ValidateJWTSVID", { audience: "others", svid: jwt.svids[0].svid })),
    },
};
console.log(JSON.stringify(result));
client.close();
