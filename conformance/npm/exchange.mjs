// An independent client (oauth4webapi, jose): discovery, private_key_jwt, DPoP with the nonce retry, token exchange,
// and the checks of RFC 9068 on what came of it. Reads one JSON object from stdin, prints one to stdout.
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import assert from 'node:assert/strict'
import { text } from 'node:stream/consumers'

const given = JSON.parse(await text(process.stdin))
const insecure = { [oauth.allowInsecureRequests]: given.issuer.startsWith('http://') }

const issuer = new URL(given.issuer)
const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure })
const server = await oauth.processDiscoveryResponse(issuer, discovery)
assert(server.grant_types_supported.includes('urn:ietf:params:oauth:grant-type:token-exchange'))

const client = { client_id: given.client.client_id }
const key = await crypto.subtle.importKey(
  'jwk', given.client.private_jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign'],
)
const authentication = oauth.PrivateKeyJwt({ key, kid: given.client.private_jwk.kid })
const proofKey = await oauth.generateKeyPair('ES256')
const DPoP = oauth.DPoP(client, proofKey)

const parameters = {
  subject_token: given.user_token,
  subject_token_type: given.subject_token_type ?? 'urn:ietf:params:oauth:token-type:jwt',
  resource: given.resource,
  authorization_details: JSON.stringify(given.authorization_details),
}
const exchange = async () => {
  const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
  const options = { DPoP, ...insecure }
  const response = await oauth.genericTokenEndpointRequest(server, client, authentication, grant, parameters, options)
  return oauth.processGenericTokenEndpointResponse(server, client, response)
}

let challenges = 0
const answer = await exchange().catch((error) => {
  assert(oauth.isDPoPNonceError(error), `a challenge, not ${error.error ?? error}: ${error.error_description}`)
  challenges += 1
  return exchange()
})
assert.equal(challenges, 1, 'the first request, without a nonce, is challenged')
assert.equal(answer.token_type, 'dpop')
assert.equal(answer.issued_token_type, 'urn:ietf:params:oauth:token-type:access_token')
assert(answer.expires_in >= 1 && answer.expires_in <= 120)
assert.equal(answer.refresh_token, undefined)

// The next one goes with the nonce of the last answer: no challenge.
await exchange()

// As its server would check it (RFC 9068 §4, RFC 9449 §4.3 and §7.1).
const captured = async (DPoP) => {
  let request
  const capture = async (url, options) => {
    request = new Request(url, options)
    return new Response(null, { status: 200 })
  }
  const options = { DPoP, [oauth.customFetch]: capture, [oauth.allowInsecureRequests]: true }
  const url = new URL(given.resource)
  await oauth.protectedResourceRequest(answer.access_token, 'POST', url, undefined, null, options)
  return request
}
const check = async (audience, DPoP) =>
  oauth.validateJwtAccessToken(server, await captured(DPoP), audience, insecure)
const claims = await check(given.resource, oauth.DPoP(client, proofKey))
assert.equal(claims.client_id, client.client_id)
assert.equal(claims.authorization_details.length, 1)
await assert.rejects(check(`${given.resource}/other`, oauth.DPoP(client, proofKey)), 'another audience')
const stolen = oauth.DPoP(client, await oauth.generateKeyPair('ES256'))
await assert.rejects(check(given.resource, stolen), 'another key')

const keys = jose.createRemoteJWKSet(new URL(server.jwks_uri))
const verified = await jose.jwtVerify(answer.access_token, keys, {
  issuer: server.issuer, audience: given.resource, typ: 'at+jwt', algorithms: ['ES256', 'EdDSA'],
})
assert.equal(verified.payload.cnf.jkt, await jose.calculateJwkThumbprint(await jose.exportJWK(proofKey.publicKey)))

console.log(JSON.stringify({ claims, answer: { ...answer, access_token: undefined } }))
