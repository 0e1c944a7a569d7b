// The official TypeScript MCP client with its own OAuth, knowing nothing of Deputize: it finds the authorization server
// from the MCP server, registers itself there, sends its user to sign in, and calls. One JSON object a line in, one out.
import {
  Client, ClientCredentialsProvider, StreamableHTTPClientTransport, UnauthorizedError,
} from '@modelcontextprotocol/client'
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { signIn } from './browser.mjs'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
const callback = 'http://127.0.0.1:53682/callback'

// What a host application keeps for its user.
class Account {
  redirectUrl = callback
  clientMetadata = {
    client_name: 'An ordinary client', redirect_uris: [callback], token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
  }
  signIns = 0
  clientInformation = () => this.client
  saveClientInformation = (client) => { this.client = client }
  tokens = () => this.saved
  saveTokens = (tokens) => { this.saved = tokens }
  codeVerifier = () => this.verifier
  saveCodeVerifier = (verifier) => { this.verifier = verifier }
  discoveryState = () => this.discovered
  saveDiscoveryState = (discovered) => { this.discovered = discovered }
  redirectToAuthorization = (url) => { this.asked = url }
}

let client, account

const steps = {
  connect: async ({ url, user }) => {
    account = new Account()
    const transport = () => new StreamableHTTPClientTransport(new URL(url), { authProvider: account })
    const first = transport()
    client = new Client({ name: 'ordinary', version: '1.0.0' })
    await assert.rejects(client.connect(first), UnauthorizedError)
    const led = await signIn(account.asked, callback, user)
    account.signIns += 1
    await first.finishAuth(led.searchParams)
    client = new Client({ name: 'ordinary', version: '1.0.0' })
    await client.connect(transport())
    return {
      server: client.getServerVersion(), client_id: account.client.client_id, access_token: account.saved.access_token,
      asked_scope: account.asked.searchParams.get('scope'), resource: account.asked.searchParams.get('resource'),
    }
  },
  // As a machine, without any user (client credentials).
  connect_as_machine: async ({ url, issuer }) => {
    client = new Client({ name: 'robot', version: '1.0.0' })
    const authProvider = new ClientCredentialsProvider({
      clientId: 'robot', clientSecret: 'robot-secret', expectedIssuer: issuer,
    })
    await client.connect(new StreamableHTTPClientTransport(new URL(url), { authProvider }))
    return { server: client.getServerVersion() }
  },
  list: async () => ({ tools: (await client.listTools()).tools.map((tool) => tool.name) }),
  call: async ({ name, arguments: given }) => {
    account.asked = undefined
    const result = await client.callTool({ name, arguments: given })
    return { result }
  },
  // Whether the last call sent the user to sign in again.
  sent_away: async () => ({ sent_away: account.asked !== undefined }),
  close: async () => {
    await client.close()
    return {}
  },
}

for await (const line of createInterface({ input: process.stdin })) {
  const { step, ...given } = JSON.parse(line)
  try {
    say(await steps[step](given))
  } catch (error) {
    say({ error: { code: error.code, status: error.data?.status ?? error.status, message: error.message } })
  }
  if (step === 'close') break
}
process.exit(0)
