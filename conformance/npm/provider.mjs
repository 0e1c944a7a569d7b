// An independent OpenID provider (oidc-provider) on https, and a user who signs in there by the code flow. Prints
// JSON lines: its issuer, then the user's ID token. Ends when stdin does.
import * as jose from 'jose'
import * as oauth from 'oauth4webapi'
import Provider from 'oidc-provider'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { signIn } from './browser.mjs'

const [certificate, privateKey, user] = process.argv.slice(2)
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(privateKey) })
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `https://localhost:${server.address().port}`
const callback = 'https://localhost/callback'

const { privateKey: signing } = await jose.generateKeyPair('RS256', { extractable: true })
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'desk-app', token_endpoint_auth_method: 'none', redirect_uris: [callback],
    id_token_signed_response_alg: 'RS256',
  }],
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  jwks: { keys: [{ ...(await jose.exportJWK(signing)), alg: 'RS256', use: 'sig', kid: crypto.randomUUID() }] },
  cookies: { keys: [crypto.randomUUID()] },
})
server.on('request', provider.callback())
console.log(JSON.stringify({ issuer }))

const discovered = await oauth.discoveryRequest(new URL(issuer))
const as = await oauth.processDiscoveryResponse(new URL(issuer), discovered)
const client = { client_id: 'desk-app' }
const verifier = oauth.generateRandomCodeVerifier()
let next = new URL(as.authorization_endpoint)
next.search = new URLSearchParams({
  client_id: client.client_id, redirect_uri: callback, response_type: 'code', scope: 'openid',
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: 'S256',
})
next = await signIn(next, callback, user)
const code = oauth.validateAuthResponse(as, client, next)
const response = await oauth.authorizationCodeGrantRequest(as, client, oauth.None(), code, callback, verifier)
const tokens = await oauth.processAuthorizationCodeResponse(as, client, response, { requireIdToken: true })
console.log(JSON.stringify({ id_token: tokens.id_token }))

process.stdin.resume()
process.stdin.on('end', () => process.exit())
