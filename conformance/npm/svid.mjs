// An independent client (oauth4webapi) that authenticates with a JWT-SVID: discovery, DPoP with the nonce retry, token
// exchange. Reads one JSON object from stdin, prints one to stdout.
import * as oauth from 'oauth4webapi'
import assert from 'node:assert/strict'
import { text } from 'node:stream/consumers'

const given = JSON.parse(await text(process.stdin))
const issuer = new URL(given.issuer)
const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2' })
const server = await oauth.processDiscoveryResponse(issuer, discovery)
assert(server.token_endpoint_auth_methods_supported.includes('spiffe_jwt'))

const client = { client_id: given.client_id }
// draft-ietf-oauth-spiffe-client-auth §4.1.
const authentication = (_server, { client_id }, body) => {
  body.set('client_id', client_id)
  body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe')
  body.set('client_assertion', given.svid)
}
const exchange = async (DPoP) => {
  const grant = 'urn:ietf:params:oauth:grant-type:token-exchange'
  const response = await oauth.genericTokenEndpointRequest(
    server, client, authentication, grant, given.parameters, { DPoP },
  )
  return oauth.processGenericTokenEndpointResponse(server, client, response)
}
const challenged = async (DPoP) => exchange(DPoP).catch((error) => {
  assert(oauth.isDPoPNonceError(error), `${error.error ?? error}: ${error.error_description}`)
  return exchange(DPoP)
})

try {
  // Good until it expires: more than once, for more than one key.
  await challenged(oauth.DPoP(client, await oauth.generateKeyPair('ES256')))
  const answer = await challenged(oauth.DPoP(client, await oauth.generateKeyPair('ES256')))
  const claims = JSON.parse(Buffer.from(answer.access_token.split('.')[1], 'base64url'))
  console.log(JSON.stringify({ claims, token_type: answer.token_type }))
} catch (error) {
  // An answer with WWW-Authenticate is told as a challenge; what it says is in its body.
  const said = error.error ?? (await error.response?.json())?.error ?? error.message
  console.log(JSON.stringify({ error: said }))
}
