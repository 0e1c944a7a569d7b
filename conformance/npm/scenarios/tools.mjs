// Tools that answer at once, or ask and tell while they run (MCP up to 2025-11-25).
import { fromJsonSchema, inputRequired } from '@modelcontextprotocol/server'
import { setTimeout as sleep } from 'node:timers/promises'
import { PIXEL, form, object, text } from './words.mjs'

export const addTools = (server, notify) => {
  const add = (name, description, run, schema = object({})) => {
    const inputSchema = fromJsonSchema(schema)
    server.registerTool(name, { description, inputSchema }, async (given, context) => {
      const content = await run(given, context)
      return Array.isArray(content) ? { content } : content
    })
  }
  const said = (words) => [{ type: 'text', text: words }]
  const resource = (uri, mimeType, words) => ({ type: 'resource', resource: { uri, mimeType, text: words } })
  const picture = { type: 'image', data: PIXEL, mimeType: 'image/png' }

  add('test_simple_text', 'Says something', () => said('This is a simple text response for testing.'))
  add('test_image_content', 'Shows a picture', () => [picture])
  add('test_audio_content', 'Plays silence', () => [{ type: 'audio', data: SILENCE, mimeType: 'audio/wav' }])
  add('test_embedded_resource', 'Brings a resource', () =>
    [resource('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')])
  add('test_multiple_content_types', 'Says, shows and brings', () => [
    ...said('Multiple content types test:'),
    picture,
    resource('test://mixed-content-resource', 'application/json', JSON.stringify({ test: 'data', value: 123 })),
  ])
  add('test_error_handling', 'Fails', () => {
    throw new Error('This tool intentionally returns an error for testing')
  })
  add('json_schema_2020_12_tool', 'Takes what a schema of many words allows', () => said('taken'), WORDY)
  add('test_x_mcp_header', 'Takes a region, which stands in a header too', ({ region }) => said(`region: ${region}`), object({
    region: { ...text, 'x-mcp-header': 'Region' }, level: { type: 'integer' },
  }))

  add('test_tool_with_logging', 'Tells what it does', async (_, { mcpReq }) => {
    for (const data of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mcpReq.notify({ method: 'notifications/message', params: { level: 'info', data } })
      await sleep(50)
    }
    return said('told')
  })
  add('test_tool_with_progress', 'Tells how far it is', async (_, { mcpReq }) => {
    const progressToken = mcpReq._meta?.progressToken
    for (const progress of progressToken === undefined ? [] : [0, 50, 100]) {
      await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } })
      await sleep(50)
    }
    return said('done')
  })
  add('test_logging_tool', 'Logs where the client wants that', async (_, { mcpReq }) => {
    await mcpReq.log('info', 'ran')
    return said('logged')
  })
  add('test_streaming_elicitation', 'Asks nothing on its stream', () => said('nothing asked'))
  add('test_missing_capability', "Needs the client's model", (_, { mcpReq }) =>
    mcpReq.inputResponses?.answer
      ? said('it answered')
      : inputRequired({ inputRequests: { answer: inputRequired.createMessage({ messages: QUESTION, maxTokens: 16 }) } }))
  add('test_reconnection', 'Lets its stream break off', async (_, { http }) => {
    http?.closeSSE?.()
    await sleep(100)
    return said('the stream goes on')
  })
  add('test_trigger_tool_change', 'Says that the tools changed', () => {
    notify().toolsChanged()
    return said('said')
  })
  add('test_trigger_prompt_change', 'Says that the prompts changed', () => {
    notify().promptsChanged()
    return said('said')
  })

  add('test_sampling', "Asks the client's model", async ({ prompt }, { mcpReq }) => {
    const messages = [{ role: 'user', content: { type: 'text', text: prompt } }]
    const answer = await mcpReq.requestSampling({ messages, maxTokens: 100 })
    return said(`LLM response: ${answer.content.text}`)
  }, object({ prompt: text }, ['prompt']))
  const elicits = (name, description, given, schema) =>
    add(name, description, async (args, { mcpReq }) => {
      const { action, content } = await mcpReq.elicitInput(given(args))
      return said(`action=${action}, content=${JSON.stringify(content ?? {})}`)
    }, schema)
  elicits('test_elicitation', 'Asks the user', ({ message }) => form(message, { username: text, email: text }),
    object({ message: text }, ['message']))
  elicits('test_elicitation_sep1034_defaults', 'Asks with answers to begin with', () =>
    ({ message: 'Please review', requestedSchema: object(DEFAULTS) }))
  elicits('test_elicitation_sep1330_enums', 'Asks to choose', () =>
    ({ message: 'Please choose', requestedSchema: object(CHOICES) }))
}

const QUESTION = [{ role: 'user', content: { type: 'text', text: 'Say: pong' } }]
const SILENCE = 'UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA='

const DEFAULTS = {
  name: { ...text, default: 'John Doe' },
  age: { type: 'integer', default: 30 },
  score: { type: 'number', default: 95.5 },
  status: { ...text, enum: ['active', 'inactive', 'pending'], default: 'active' },
  verified: { type: 'boolean', default: true },
}

const options = ['option1', 'option2', 'option3']
const titled = (kind) => ['First', 'Second', 'Third'].map((title, at) => ({ const: `value${at + 1}`, title: `${title} ${kind}` }))
const CHOICES = {
  untitledSingle: { ...text, enum: options },
  titledSingle: { ...text, oneOf: titled('Option') },
  legacyEnum: { ...text, enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
  untitledMulti: { type: 'array', items: { ...text, enum: options } },
  titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
}

const WORDY = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $defs: { address: { $anchor: 'addressDef', ...object({ street: text, city: text }) } },
  ...object({
    name: text, address: { $ref: '#/$defs/address' }, contactMethod: { ...text, enum: ['phone', 'email'] },
    phone: text, email: text,
  }),
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
}
