// Asks a broker for the AWS credentials of a call with Deputize's own client for TypeScript.
//
// Arguments: the client's folder as it was built, and a file with `issuer`, `client_id`, `private_key`, `encryption_key`
// (or null), `token` and `arguments` as JSON. Prints the secret that it got, or why it got none, as JSON.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const { DeputizeClient, DeputizeError } = await import(pathToFileURL(join(folder, "dist/index.js")));
const { issuer, client_id: clientId, private_key: privateKey, encryption_key: encryptionKey, token, arguments: args } =
  JSON.parse(readFileSync(file, "utf8"));
const client = await DeputizeClient.create({ issuer, clientId, privateKey, encryptionKey: encryptionKey ?? undefined });
const answer = await client.awsCredentials({ token, arguments: args }).then(
  ({ secretAccessKey }) => ({ secret: secretAccessKey }),
  (error) => {
    if (error instanceof DeputizeError) return { refused: error.message };
    throw error;
  },
);
console.log(JSON.stringify(answer));
