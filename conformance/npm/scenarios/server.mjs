// The server that the conformance suite of MCP is run against, with and without a guard before it: what the suite's
// scenarios ask for, on the official SDK, for every version of MCP. Prints {"url"} once it listens on a free port of
// loopback; ends with its parent.
import { serve } from '@hono/node-server'
import {
  McpServer, WebStandardStreamableHTTPServerTransport, createMcpHandler, createRequestStateCodec,
  hostHeaderValidationResponse, isLegacyRequest, localhostAllowedHostnames, localhostAllowedOrigins,
  originValidationResponse,
} from '@modelcontextprotocol/server'
import { addPrompts, addResources } from './content.mjs'
import { addRounds } from './rounds.mjs'
import { addTools } from './tools.mjs'

const state = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) })

const mcpServer = () => {
  const changing = { listChanged: true }
  const server = new McpServer({ name: 'scenarios', version: '1.0.0' }, {
    capabilities: {
      tools: changing, prompts: changing, resources: { ...changing, subscribe: true }, logging: {}, completions: {},
    },
    requestState: { verify: state.verify },
  })
  addTools(server, () => modern.notify)
  addRounds(server, state)
  addResources(server)
  addPrompts(server)
  return server
}

// Since 2026-07-28 each request stands alone; before, it stands in a session.
const modern = createMcpHandler(mcpServer, { legacy: 'reject' })
const sessions = new Map()

const begin = async () => {
  const transport = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => crypto.randomUUID(),
    onsessioninitialized: (id) => void sessions.set(id, transport),
    onsessionclosed: (id) => void sessions.delete(id),
    eventStore: eventStore(),
    retryInterval: 500,
  })
  await mcpServer().connect(transport)
  return transport
}

// What was said on a session's streams, for clients that come back to them.
const eventStore = () => {
  const events = []
  return {
    storeEvent: async (stream, message) => `${stream}/${events.push({ stream, message })}`,
    replayEventsAfter: async (cursor, { send }) => {
      const [stream, count] = cursor.split('/')
      for (const [at, event] of events.entries()) {
        const missed = at >= Number(count) && event.stream === stream && 'jsonrpc' in event.message
        if (missed) await send(`${stream}/${at + 1}`, event.message)
      }
      return stream
    },
  }
}

const refused = (status, message) =>
  Response.json({ jsonrpc: '2.0', id: null, error: { code: -32000, message } }, { status })

const answer = async (request) => {
  const foreign = hostHeaderValidationResponse(request, localhostAllowedHostnames())
    ?? originValidationResponse(request, localhostAllowedOrigins())
  if (foreign) return foreign
  const body = request.method === 'POST' ? await request.json().catch(() => undefined) : undefined
  const options = { parsedBody: body }
  if (!(await isLegacyRequest(request, body))) return modern.fetch(request, options)
  const id = request.headers.get('mcp-session-id')
  if (id) return sessions.get(id)?.handleRequest(request, options) ?? refused(404, 'no such session')
  return body?.method === 'initialize' ? (await begin()).handleRequest(request, options) : refused(400, 'no session')
}

serve({ fetch: answer, hostname: '127.0.0.1', port: 0 }, ({ port }) => {
  console.log(JSON.stringify({ url: `http://127.0.0.1:${port}/mcp` }))
})
process.stdin.resume()
process.stdin.on('end', () => process.exit())
