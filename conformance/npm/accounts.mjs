// An independent OpenID provider (oidc-provider) on https as MCP wants one: clients register themselves (RFC 7591), and
// the access tokens that they ask for a server are JWTs for that server alone (RFC 8707, RFC 9068). Prints its issuer.
// Ends when stdin does.
import * as jose from 'jose'
import Provider from 'oidc-provider'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'

const [certificate, privateKey] = process.argv.slice(2)
const server = createServer({ cert: readFileSync(certificate), key: readFileSync(privateKey) })
await new Promise((listening) => server.listen(0, '127.0.0.1', listening))
const issuer = `https://localhost:${server.address().port}`

const { privateKey: signing } = await jose.generateKeyPair('RS256', { extractable: true })
const provider = new Provider(issuer, {
  clients: [{
    client_id: 'robot', client_secret: 'robot-secret', grant_types: ['client_credentials'], redirect_uris: [],
    response_types: [],
  }],
  scopes: ['openid', 'offline_access', 'mcp'],
  features: {
    registration: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'mcp', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 300,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  jwks: { keys: [{ ...(await jose.exportJWK(signing)), alg: 'RS256', use: 'sig', kid: crypto.randomUUID() }] },
  cookies: { keys: [crypto.randomUUID()] },
})
server.on('request', provider.callback())
console.log(JSON.stringify({ issuer }))

process.stdin.resume()
process.stdin.on('end', () => process.exit())
