// An independent MCP client (the official TypeScript SDK) that knows nothing of Deputize: it starts the command that
// it is told and does what it is told, one JSON object a line in, one out.
import { Client } from '@modelcontextprotocol/client'
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio'
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/client'
import { createInterface } from 'node:readline'

const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)
const client = new Client({ name: 'conformance', version: '1.0.0' })

const transport = ({ command, args, url, headers }) =>
  command
    ? new StdioClientTransport({ command, args, stderr: 'inherit' })
    : new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers } })

const steps = {
  connect: async (given) => {
    await client.connect(transport(given))
    return { server: client.getServerVersion() }
  },
  list: async () => ({ tools: (await client.listTools()).tools.map((tool) => tool.name) }),
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
