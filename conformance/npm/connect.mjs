// An independent MCP client (the official TypeScript SDK) that knows nothing of Deputize: it starts the command, or
// speaks to the URL, that it is told and does what it is told, one JSON object a line in, one out. `version` pins one
// of MCP; with `dpop` it gets its tokens itself.
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { createInterface } from 'node:readline'
import { dpopFetch } from './dpop.mjs'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
let client

const transport = async ({ command, args, url, headers, dpop }) => {
  if (command) return new StdioClientTransport({ command, args, stderr: 'inherit' })
  const fetch = dpop && (await dpopFetch(dpop))
  return new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers }, ...(fetch && { fetch }) })
}

const steps = {
  connect: async ({ version, ...given }) => {
    const versionNegotiation = version && { mode: { pin: version } }
    client = new Client({ name: 'conformance', version: '1.0.0' }, { versionNegotiation })
    await client.connect(await transport(given))
    return { server: client.getServerVersion(), version: client.getNegotiatedProtocolVersion() }
  },
  list: async () => ({ tools: (await client.listTools()).tools.map((tool) => tool.name) }),
  definitions: async () => ({ tools: (await client.listTools()).tools }),
  prompts: async () => ({ prompts: (await client.listPrompts()).prompts }),
  call: async ({ name, arguments: given }) => ({ result: await client.callTool({ name, arguments: given }) }),
  calls: async ({ calls }) => ({ results: await Promise.all(calls.map((call) => client.callTool(call))) }),
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
    say({ error: { code: error.code, message: error.message } })
  }
  if (step === 'close') break
}
process.exit(0)
